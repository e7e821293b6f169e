//! The faces that people use.

use crate::error::{Error, Kind, Result};

pub fn run(args: &[String]) -> Result<i32> {
    match args[0].as_str() {
        "adopt" => crate::adopt::adopt(&args[1], &args[2]).map(|_| 0),
        other => Err(Error::new(Kind::Unsupported, other)),
    }
}
