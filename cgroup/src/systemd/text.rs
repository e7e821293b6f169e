//! Properties given as text: annotations `org.systemd.property.NAME=VALUE`, the value in GVariant's notation.

use super::properties::Property;
use super::value::{split, Value};
use crate::error::{invalid, Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// Reads those annotations that are meant for the unit, and passes over all others.
pub fn annotations<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for (key, text) in all {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            invalid!("annotation {key}: \"{name}\" is no name of a property");
        }
        let value = parse(text).map_err(|e| e.context(format!("annotation {key}")))?;
        // Units are written with seconds in files, with microseconds on the bus.
        let seconds = name.strip_suffix("Sec").filter(|n| n.ends_with(|c: char| c.is_ascii_lowercase()));
        found.push(match seconds {
            Some(stem) => Property::new(format!("{stem}USec"), microseconds(value, key)?),
            None => Property::new(name, value),
        });
    }
    Ok(found)
}

fn microseconds(value: Value, key: &str) -> Result<Value> {
    let seconds = match value {
        Value::Byte(n) => f64::from(n),
        Value::I16(n) => f64::from(n),
        Value::U16(n) => f64::from(n),
        Value::I32(n) => f64::from(n),
        Value::U32(n) => f64::from(n),
        Value::I64(n) => n as f64,
        // "infinity"
        Value::U64(u64::MAX) => return Ok(Value::U64(u64::MAX)),
        Value::U64(n) => n as f64,
        Value::F64(n) => n,
        _ => invalid!("annotation {key}: a number of seconds is wanted"),
    };
    if !(0.0..1e13).contains(&seconds) {
        invalid!("annotation {key}: {seconds} seconds are out of range");
    }
    Ok(Value::U64((seconds * 1e6).round() as u64))
}

/// Reads one value: `true`, `5`, `uint64 5`, `'text'`, `['a', 'b']`, `@t 5`, `(1, 'x')`.
pub fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text.trim_start(), whole: text };
    let value = parser.value(None, 0)?;
    match parser.rest.trim() {
        "" => Ok(value),
        _ => Err(parser.bad()),
    }
}

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl Parser<'_> {
    fn bad(&self) -> Error {
        Error::invalid(format!(
            "\"{}\" is no value such as true, 5, uint64 5, 'text' or ['a', 'b']",
            self.whole
        ))
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value, of the type `want` if that is known already.
    fn value(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        if depth > 8 {
            return Err(self.bad());
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some('@') => {
                self.rest = &self.rest[1..];
                let end = self.rest.find(char::is_whitespace).ok_or_else(|| self.bad())?;
                let kind = self.rest[..end].to_string();
                if !split(&kind)?.1.is_empty() {
                    return Err(self.bad());
                }
                self.rest = &self.rest[end..];
                self.value(Some(&kind), depth + 1)
            }
            Some('[') => self.array(want, depth),
            Some('(') => self.tuple(want, depth),
            Some('\'' | '"') => {
                let text = self.quoted()?;
                match want {
                    None | Some("s") => Ok(Value::Str(text)),
                    Some("o") => Ok(Value::Path(text)),
                    Some("g") => Ok(Value::Signature(text)),
                    Some(_) => Err(self.bad()),
                }
            }
            Some('<') => {
                self.eat('<');
                let inner = self.value(None, depth + 1)?;
                if !self.eat('>') {
                    return Err(self.bad());
                }
                Ok(Value::Variant(Box::new(inner)))
            }
            _ => self.simple(want, depth),
        }
    }

    fn array(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        self.eat('[');
        let mut element = match want {
            Some(w) => Some(w.strip_prefix('a').ok_or_else(|| self.bad())?.to_string()),
            None => None,
        };
        let mut items = Vec::new();
        while !self.eat(']') {
            if !items.is_empty() && !self.eat(',') {
                return Err(self.bad());
            }
            let item = self.value(element.as_deref(), depth + 1)?;
            let kind = item.signature();
            if element.as_ref().is_some_and(|e| *e != kind) {
                return Err(self.bad());
            }
            element = Some(kind);
            items.push(item);
        }
        // Of an empty array the type can't be told.
        Ok(Value::Array(element.ok_or_else(|| self.bad())?, items))
    }

    fn tuple(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        self.eat('(');
        let mut kinds = match want {
            Some(w) => {
                let inner = w.strip_prefix('(').and_then(|w| w.strip_suffix(')'));
                Some(inner.ok_or_else(|| self.bad())?.to_string())
            }
            None => None,
        };
        let mut fields = Vec::new();
        while !self.eat(')') {
            if !fields.is_empty() && !self.eat(',') {
                return Err(self.bad());
            }
            let (kind, rest) = match &kinds {
                Some(k) => split(k).map(|(a, b)| (Some(a.to_string()), Some(b.to_string())))?,
                None => (None, None),
            };
            fields.push(self.value(kind.as_deref(), depth + 1)?);
            kinds = rest;
        }
        match fields.is_empty() {
            true => Err(self.bad()),
            false => Ok(Value::Struct(fields)),
        }
    }

    fn quoted(&mut self) -> Result<String> {
        let quote = self.rest.chars().next();
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if Some(c) == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, c @ ('\\' | '\'' | '"'))) => out.push(c),
                    _ => return Err(self.bad()),
                },
                c => out.push(c),
            }
        }
        Err(self.bad())
    }

    fn simple(&mut self, want: Option<&str>, depth: u32) -> Result<Value> {
        let word = self.word().to_string();
        let kind = match word.as_str() {
            "true" | "false" if matches!(want, None | Some("b")) => return Ok(Value::Bool(word == "true")),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            _ => return number(&word, want).ok_or_else(|| self.bad()),
        };
        if want.is_some_and(|w| w != kind) {
            return Err(self.bad());
        }
        self.value(Some(kind), depth + 1)
    }
}

fn number(word: &str, want: Option<&str>) -> Option<Value> {
    let whole = || -> Option<i128> {
        let (negative, digits) = word.strip_prefix('-').map_or((false, word), |d| (true, d));
        let n = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16).ok()?,
            None => digits.parse::<u64>().ok()?.into(),
        };
        Some(if negative { -n } else { n })
    };
    match want {
        Some("y") => Some(Value::Byte(whole()?.try_into().ok()?)),
        Some("n") => Some(Value::I16(whole()?.try_into().ok()?)),
        Some("q") => Some(Value::U16(whole()?.try_into().ok()?)),
        Some("u") => Some(Value::U32(whole()?.try_into().ok()?)),
        Some("x") => Some(Value::I64(whole()?.try_into().ok()?)),
        Some("t") => Some(Value::U64(whole()?.try_into().ok()?)),
        Some("d") => Some(Value::F64(word.parse().ok()?)),
        Some("i") => Some(Value::I32(whole()?.try_into().ok()?)),
        Some(_) => None,
        None if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => match whole() {
            Some(n) => Some(Value::I32(n.try_into().ok()?)),
            None => Some(Value::F64(word.parse().ok()?)),
        },
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(parse("true").unwrap(), Value::Bool(true));
        assert_eq!(parse(" 5 ").unwrap(), Value::I32(5));
        assert_eq!(parse("uint64 0x10").unwrap(), Value::U64(16));
        assert_eq!(parse("@t 7").unwrap(), Value::U64(7));
        assert_eq!(parse("'it\\'s'").unwrap(), Value::str("it's"));
        assert_eq!(parse("1.5").unwrap(), Value::F64(1.5));
        let list = Value::Array("s".into(), vec![Value::str("a"), Value::str("b")]);
        assert_eq!(parse("['a', \"b\"]").unwrap(), list);
        assert_eq!(parse("@as []").unwrap(), Value::Array("s".into(), vec![]));
        let pair = Value::Array("(st)".into(), vec![Value::Struct(vec![Value::str("/d"), Value::U64(1)])]);
        assert_eq!(parse("@a(st) [('/d', 1)]").unwrap(), pair);
        assert_eq!(parse("[('/d', uint64 1)]").unwrap(), pair);
        for bad in [
            "",
            "[]",
            "x",
            "['a', 1]",
            "'a",
            "5 5",
            "uint32 -1",
            "@z 1",
            "@tt 1",
            "99999999999",
            "((((((((((1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_for_the_unit() {
        let all = [
            ("org.systemd.property.TimeoutStopSec", "uint64 90"),
            ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
            ("other", "x"),
        ];
        let found = annotations(all).unwrap();
        assert_eq!(found[0], Property::new("TimeoutStopUSec", Value::U64(90_000_000)));
        assert_eq!(found[1].name, "CollectMode");
        assert_eq!(found.len(), 2);
        assert!(annotations([("org.systemd.property.x-y", "1")]).is_err());
        assert!(annotations([("org.systemd.property.TimeoutStopSec", "'x'")]).is_err());
    }
}
