//! The command line that containerd uses: Go's flags, one dash or two, `-flag value` or `-flag=value`.

use crate::error::{Error, Kind, Result};

#[derive(Debug, Default, PartialEq)]
pub struct Flags {
    pub namespace: String,
    pub address: String,
    pub publish_binary: String,
    pub id: String,
    pub bundle: String,
    pub socket: String,
    pub debug: bool,
    pub version: bool,
    pub info: bool,
    pub action: String,
}

pub fn parse(args: &[String]) -> Result<Flags> {
    let invalid = |text: String| Error::new(Kind::Invalid, text);
    let mut flags = Flags::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            if !flags.action.is_empty() {
                return Err(invalid(format!("unexpected argument {arg}")));
            }
            flags.action = arg.clone();
            continue;
        };
        let (name, given) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (name, None),
        };
        let switch = match name {
            "debug" => Some(&mut flags.debug),
            "v" | "version" => Some(&mut flags.version),
            "info" => Some(&mut flags.info),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = given.as_deref() != Some("false");
            continue;
        }
        let mut value = || {
            given
                .clone()
                .or_else(|| args.next().cloned())
                .ok_or_else(|| invalid(format!("flag needs an argument: -{name}")))
        };
        match name {
            "namespace" => flags.namespace = value()?,
            "address" => flags.address = value()?,
            "publish-binary" => flags.publish_binary = value()?,
            "id" => flags.id = value()?,
            "bundle" => flags.bundle = value()?,
            "socket" | "debug-socket" => flags.socket = value()?,
            other => return Err(invalid(format!("flag provided but not defined: -{other}"))),
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    #[test]
    fn as_containerd_writes_them() {
        let line =
            "-namespace moby -address /run/c.sock -publish-binary /usr/bin/containerd -id=x -debug start";
        let args: Vec<String> = line.split(' ').map(String::from).collect();
        let flags = super::parse(&args).unwrap();
        assert_eq!(
            (flags.namespace.as_str(), flags.id.as_str(), flags.action.as_str(), flags.debug),
            ("moby", "x", "start", true)
        );
        assert!(super::parse(&["-colour".into(), "red".into()]).is_err());
    }
}
