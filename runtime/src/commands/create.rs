//! `create` and `run`.

use super::{start, Setting};
use crate::cli;
use crate::create::{self, Created, Mode};
use crate::error::Result;
use crate::foreground::{self, Foreground};
use crate::spec::Hooks;

pub fn create(setting: &Setting, args: &cli::Create) -> Result<u8> {
    let Created { container, mut child, .. } = create::create(setting, args, Mode::Create)?;
    if let Err(e) = child.go() {
        child.kill();
        create::give_up(&container, "create");
        return Err(e);
    }
    Ok(0)
}

/// Create, start, and unless detached: stay, pass signals and the terminal on, delete.
pub fn run(setting: &Setting, args: &cli::Run) -> Result<u8> {
    let foreground = match args.detach {
        true => None,
        false => Some(Foreground::begin(!args.no_subreaper)?),
    };
    let Created { mut container, mut child, spec, console } =
        create::create(setting, &args.create, Mode::Run { detach: args.detach })?;
    let started = start::network(&mut container, child.pid)
        .and_then(|()| child.go())
        .and_then(|()| child.await_exec())
        .and_then(|()| start::poststart(&container, spec.hooks.as_ref().unwrap_or(&Hooks::default())));
    if let Err(e) = started {
        child.kill();
        create::give_up(&container, "run");
        return Err(e);
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.stay(child.pid, console);
    if !args.keep {
        super::delete::destroy(&container)?;
    }
    code.map(foreground::exit_code)
}
