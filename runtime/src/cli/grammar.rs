//! The grammar of Go's flag packages, which runc's callers write: `--flag v`, `--flag=v`, `-flag v`, `-flag=v`,
//! `-f v`, `-f=v`, `--switch`, `--switch=false`, `--` ends the flags. A value may begin with a dash. Of a flag given
//! twice the last one holds. Flags may follow the positionals, except where the verb says otherwise.

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or a Go boolean behind `=`.
    Nothing,
    /// One value; the last one holds. The string names it in help texts.
    Value(&'static str),
    /// A value each time, all kept.
    Values(&'static str),
}

/// One flag of one verb.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    pub takes: Takes,
    pub help: &'static str,
    /// Accepted, but not shown.
    pub hidden: bool,
}

pub const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, takes: Takes::Nothing, help, hidden: false }
}

pub const fn value(long: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, takes: Takes::Value(name), help, hidden: false }
}

pub const fn values(long: &'static str, name: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, takes: Takes::Values(name), help, hidden: false }
}

impl Flag {
    pub const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    pub const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }
}

/// How many positionals a verb takes; the texts are runc's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

/// A subcommand, as a table row: the parser, the help, the man pages and the completions are all made from it.
#[derive(Debug)]
pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// The positionals as shown in help.
    pub args: &'static str,
    /// More for the help and the man page.
    pub long: &'static str,
    pub arity: Arity,
    /// Flags end at the first positional: what follows belongs to somebody else (`exec ID ls -l`).
    pub stops: bool,
    /// Takes the knob flags too.
    pub knobs: bool,
    pub flags: &'static [&'static [Flag]],
}

impl Verb {
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|group| group.iter())
    }
}

/// The flags and positionals of one command line, in the order given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    values: Vec<(&'static str, String)>,
    /// Knob flags, by their long names.
    pub knobs: Vec<(String, String)>,
    pub positionals: Vec<String>,
    pub help: bool,
}

impl Given {
    /// The last value of a flag.
    pub fn get(&self, long: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| *name == long).map(|(_, v)| v.as_str())
    }

    /// The last value of a flag, with runc's convention that an empty one is none.
    pub fn text(&self, long: &str) -> Option<String> {
        self.get(long).filter(|v| !v.is_empty()).map(str::to_string)
    }

    pub fn path(&self, long: &str) -> Option<std::path::PathBuf> {
        self.text(long).map(Into::into)
    }

    pub fn all(&self, long: &str) -> Vec<String> {
        self.values.iter().filter(|(name, _)| *name == long).map(|(_, v)| v.clone()).collect()
    }

    /// Switches are stored as "true" or "false" by the parser.
    pub fn on(&self, long: &str) -> bool {
        self.get(long) == Some("true")
    }

    /// A whole number, decimal or 0x, 0o, 0b; absent is `None`.
    pub fn number<T: TryFrom<i64>>(&self, long: &str) -> Result<Option<T>, String> {
        self.get(long).map(|v| number(long, v)).transpose()
    }

    /// The given ones of `flags`, in the order given.
    pub fn among(&self, flags: &[Flag]) -> Vec<(&'static str, String)> {
        self.values.iter().filter(|(name, _)| flags.iter().any(|f| f.long == *name)).cloned().collect()
    }
}

pub fn number<T: TryFrom<i64>>(long: &str, text: &str) -> Result<T, String> {
    let wrong = |why: &str| format!("invalid value {text:?} for flag -{long}: {why}");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (&digits[2..], 16),
        Some("0o") => (&digits[2..], 8),
        Some("0b") => (&digits[2..], 2),
        _ => (digits, 10),
    };
    if digits.starts_with(['+', '-']) {
        return Err(wrong("parse error"));
    }
    let n = i64::from_str_radix(digits, radix).map_err(|_| wrong("parse error"))?;
    T::try_from(if negative { -n } else { n }).map_err(|_| wrong("value out of range"))
}

/// Go's strconv.ParseBool.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's time.ParseDuration for what is not negative: "5s", "1m30s", "1.5h", "250ms", "0".
pub fn duration(text: &str) -> Option<std::time::Duration> {
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let count: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        nanos += count
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    std::time::Duration::try_from_secs_f64(nanos / 1e9).ok()
}

/// Names in scope while a list of arguments is read; the first group that has a name wins.
pub struct Scope {
    pub groups: &'static [&'static [Flag]],
    pub fallback: &'static [Flag],
    /// Whether a name is a knob flag here.
    pub knob: fn(&str) -> bool,
    /// Stop at the first positional.
    pub stops: bool,
}

impl Scope {
    fn find(&self, name: &str) -> Option<&'static Flag> {
        let mut flags = self.groups.iter().flat_map(|g| g.iter()).chain(self.fallback);
        flags.find(|f| f.long == name || f.short.is_some_and(|c| name.strip_prefix(c) == Some("")))
    }
}

/// Reads arguments. The error is Go's text, which callers match on.
pub fn read(args: &mut dyn Iterator<Item = String>, scope: &Scope) -> Result<Given, String> {
    let mut given = Given::default();
    while let Some(arg) = args.next() {
        let Some(body) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            given.positionals.push(arg);
            if scope.stops {
                break;
            }
            continue;
        };
        match (body.is_empty(), arg.len()) {
            // "-" is a positional, "--" ends the flags.
            (true, 1) => {
                given.positionals.push(arg);
                if scope.stops {
                    break;
                }
                continue;
            }
            (true, _) => break,
            _ => {}
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, v)) => (name, Some(v.to_string())),
            None => (body, None),
        };
        one(&mut given, name, inline, args, scope)?;
    }
    given.positionals.extend(args);
    Ok(given)
}

/// One flag and its value.
fn one(
    given: &mut Given,
    name: &str,
    inline: Option<String>,
    args: &mut dyn Iterator<Item = String>,
    scope: &Scope,
) -> Result<(), String> {
    let needs = || format!("flag needs an argument: -{name}");
    if let Some(flag) = scope.find(name) {
        let value = match (flag.takes, inline) {
            (Takes::Nothing, None) => "true".to_string(),
            (Takes::Nothing, Some(v)) => match boolean(&v) {
                Some(b) => b.to_string(),
                None => return Err(format!("invalid boolean value {v:?} for -{name}: parse error")),
            },
            (_, Some(v)) => v,
            (_, None) => args.next().ok_or_else(needs)?,
        };
        given.values.push((flag.long, value));
    } else if matches!(name, "h" | "help" | "?") {
        given.help = true;
    } else if (scope.knob)(name) {
        let value = match inline {
            Some(v) => v,
            None => args.next().ok_or_else(needs)?,
        };
        given.knobs.push((name.to_string(), value));
    } else {
        return Err(format!("flag provided but not defined: -{name}"));
    }
    Ok(())
}
