//! `create` and `run`.

use super::{start, Setting};
use crate::cli;
use crate::create::{self, Created, Mode};
use crate::error::Result;
use crate::foreground::{self, Foreground};
use crate::notify::Notify;
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
    let notify = Notify::open(container.path());
    let started = start::network(&mut container, child.pid)
        .and(notify)
        .and_then(|notify| child.go().map(|()| notify))
        .and_then(|notify| child.await_exec().map(|()| notify))
        .and_then(|notify| {
            start::poststart(&container, spec.hooks.as_ref().unwrap_or(&Hooks::default())).map(|()| notify)
        });
    let notify = match started {
        Ok(notify) => notify,
        Err(e) => {
            child.kill();
            create::give_up(&container, "run");
            return Err(e);
        }
    };
    let Some(foreground) = foreground else {
        if let (Some(notify), Some(init)) = (notify, container.state.init) {
            notify.wait(init);
        }
        return Ok(0);
    };
    let code = foreground.stay(child.pid, console, notify.as_ref());
    if !args.keep {
        super::delete::destroy(&container)?;
    }
    code.map(foreground::exit_code)
}
