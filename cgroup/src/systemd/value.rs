//! Values of D-Bus: their types as text, their bytes on the wire (little endian).

use serde::{Deserialize, Serialize};

use crate::error::{invalid, Error, Kind, Result};

/// A value of D-Bus. Maps are not needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Path(String),
    Signature(String),
    /// Type of the elements, elements.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
    /// A map's entry.
    Entry(Box<(Value, Value)>),
}

impl Value {
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) | Value::Path(s) | Value::Signature(s) => Some(s),
            Value::Variant(v) => v.as_str(),
            _ => None,
        }
    }

    /// The type, as D-Bus writes it.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::F64(_) => "d".into(),
            Value::Str(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => "v".into(),
            Value::Entry(e) => format!("{{{}{}}}", e.0.signature(), e.1.signature()),
        }
    }

    /// Appends the bytes; alignment counts from the start of `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        pad(out, alignment(self.signature().as_bytes().first().copied()));
        match self {
            Value::Byte(n) => out.push(*n),
            Value::Bool(b) => out.extend(u32::from(*b).to_le_bytes()),
            Value::I16(n) => out.extend(n.to_le_bytes()),
            Value::U16(n) => out.extend(n.to_le_bytes()),
            Value::I32(n) => out.extend(n.to_le_bytes()),
            Value::U32(n) => out.extend(n.to_le_bytes()),
            Value::I64(n) => out.extend(n.to_le_bytes()),
            Value::U64(n) => out.extend(n.to_le_bytes()),
            Value::F64(n) => out.extend(n.to_le_bytes()),
            Value::Str(s) | Value::Path(s) => {
                out.extend((s.len() as u32).to_le_bytes());
                out.extend(s.as_bytes());
                out.push(0);
            }
            Value::Signature(s) => {
                out.push(s.len() as u8);
                out.extend(s.as_bytes());
                out.push(0);
            }
            Value::Array(element, items) => {
                let at = out.len();
                out.extend([0; 4]);
                pad(out, alignment(element.as_bytes().first().copied()));
                let start = out.len();
                items.iter().for_each(|i| i.encode(out));
                let length = (out.len() - start) as u32;
                out[at..at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => fields.iter().for_each(|f| f.encode(out)),
            Value::Variant(v) => {
                Value::Signature(v.signature()).encode(out);
                v.encode(out);
            }
            Value::Entry(e) => {
                e.0.encode(out);
                e.1.encode(out);
            }
        }
    }
}

pub fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn alignment(kind: Option<u8>) -> usize {
    match kind {
        Some(b'y' | b'g' | b'v') | None => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(_) => 4,
    }
}

/// Reads values from a message.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// How deep values may be nested (the specification allows 64).
const DEPTH: u32 = 32;

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// All values that a signature names.
    pub fn all(&mut self, signature: &str) -> Result<Vec<Value>> {
        let (mut rest, mut found) = (signature, Vec::new());
        while !rest.is_empty() {
            let (one, tail) = split(rest)?;
            found.push(self.one(one, 0)?);
            rest = tail;
        }
        Ok(found)
    }

    fn one(&mut self, signature: &str, depth: u32) -> Result<Value> {
        let kind = signature.as_bytes().first().copied();
        if depth > DEPTH {
            return Err(broken());
        }
        self.align(alignment(kind))?;
        Ok(match kind {
            Some(b'y') => Value::Byte(self.fixed::<1>()?[0]),
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'n') => Value::I16(i16::from_le_bytes(self.fixed()?)),
            Some(b'q') => Value::U16(u16::from_le_bytes(self.fixed()?)),
            Some(b'i') => Value::I32(i32::from_le_bytes(self.fixed()?)),
            Some(b'u' | b'h') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(i64::from_le_bytes(self.fixed()?)),
            Some(b't') => Value::U64(u64::from_le_bytes(self.fixed()?)),
            Some(b'd') => Value::F64(f64::from_le_bytes(self.fixed()?)),
            Some(b's') => Value::Str(self.string()?),
            Some(b'o') => Value::Path(self.string()?),
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let inner = self.signature()?;
                Value::Variant(Box::new(self.one(&inner, depth + 1)?))
            }
            Some(b'a') => self.array(&signature[1..], depth)?,
            Some(b'(') => Value::Struct(self.fields(&signature[1..signature.len() - 1], depth)?),
            Some(b'{') => {
                let mut fields = self.fields(&signature[1..signature.len() - 1], depth)?;
                match (fields.pop(), fields.pop(), fields.is_empty()) {
                    (Some(value), Some(key), true) => Value::Entry(Box::new((key, value))),
                    _ => return Err(broken()),
                }
            }
            _ => return Err(broken()),
        })
    }

    fn array(&mut self, element: &str, depth: u32) -> Result<Value> {
        let length = self.u32()? as usize;
        self.align(alignment(element.as_bytes().first().copied()))?;
        let end = self.at.checked_add(length).filter(|e| *e <= self.bytes.len()).ok_or_else(broken)?;
        let mut items = Vec::new();
        while self.at < end {
            items.push(self.one(element, depth + 1)?);
        }
        Ok(Value::Array(element.to_string(), items))
    }

    fn fields(&mut self, mut signature: &str, depth: u32) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        while !signature.is_empty() {
            let (one, rest) = split(signature)?;
            found.push(self.one(one, depth + 1)?);
            signature = rest;
        }
        Ok(found)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() {
            return Err(broken());
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(broken)?;
        let found = self.bytes.get(self.at..end).ok_or_else(broken)?;
        self.at = end;
        Ok(found)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| broken())
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let bytes = self.take(length)?;
        self.take(1)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| broken())
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.fixed::<1>()?[0] as usize;
        self.text(length)
    }
}

fn broken() -> Error {
    Error::new(Kind::Systemd, "the message bus sent a malformed message")
}

/// The first complete type of a signature, and the rest.
pub fn split(signature: &str) -> Result<(&str, &str)> {
    let bytes = signature.as_bytes();
    let arrays = bytes.iter().take_while(|b| **b == b'a').count();
    let end = match bytes.get(arrays) {
        Some(b'(' | b'{') => {
            let mut depth = 0u32;
            let close = bytes.iter().skip(arrays).position(|b| {
                match b {
                    b'(' | b'{' => depth += 1,
                    b')' | b'}' => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            close.map(|n| arrays + n + 1)
        }
        Some(b) if b"ybnqiuxtdsogvh".contains(b) => Some(arrays + 1),
        _ => None,
    };
    match end {
        Some(end) => Ok(signature.split_at(end)),
        None => invalid!("\"{signature}\" is no D-Bus type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(value: Value) {
        let mut bytes = vec![];
        value.encode(&mut bytes);
        assert_eq!(Reader::new(&bytes).all(&value.signature()).unwrap(), [value]);
    }

    #[test]
    fn values_survive_the_wire() {
        let pair = Value::Struct(vec![Value::str("/dev/sda"), Value::U64(7)]);
        round(Value::Array("(st)".into(), vec![pair.clone(), pair]));
        round(Value::Array("(st)".into(), vec![]));
        round(Value::Variant(Box::new(Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)]))));
        round(Value::Struct(vec![Value::Byte(1), Value::Bool(true), Value::I16(-2), Value::F64(0.5)]));
        round(Value::Array(
            "{sv}".into(),
            vec![Value::Entry(Box::new((Value::str("a"), Value::Variant(Box::new(Value::I64(-1))))))],
        ));
    }

    #[test]
    fn bytes_are_those_of_the_specification() {
        let mut out = vec![];
        Value::str("foo").encode(&mut out);
        Value::U64(1).encode(&mut out);
        assert_eq!(out, [3, 0, 0, 0, b'f', b'o', b'o', 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Reader::new(&[255, 255, 255, 255]).all("as").is_err());
        assert!(Reader::new(&[4, 0, 0, 0]).all("s").is_err());
        assert!(Reader::new(&[1, b'v', 0].repeat(99)).all("v").is_err());
        assert!(split("a").is_err() && split("(s").is_err() && split("z").is_err());
        assert_eq!(split("aa(st)u").unwrap(), ("aa(st)", "u"));
    }
}
