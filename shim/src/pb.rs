//! Protocol buffers, as little of them as the task service needs: one macro that makes a struct a message, and bounds-checked
//! reading. Messages hold no recursion, so a message's depth is that of its type, and its size that of its frame.
//! Unknown fields are skipped, so that old state is read by new code and the other way round.

use crate::error::{Error, Kind, Result};

/// A field's value as it lies on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// Only ever skipped: no message here has one.
    Fixed32,
    Bytes(&'a [u8]),
}

pub trait Message: Default {
    fn encode(&self, out: &mut Vec<u8>);
    fn merge(&mut self, tag: u32, value: Value<'_>) -> Result<()>;

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut message = Self::default();
        let mut reader = Reader(bytes);
        while let Some((tag, value)) = reader.field()? {
            message.merge(tag, value)?;
        }
        Ok(message)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }
}

fn bad(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("protobuf: {what}"))
}

/// Walks the fields of one message.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or_else(|| bad("truncated varint"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(bad("varint too long"))
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        if n > self.0.len() as u64 {
            return Err(bad("truncated field"));
        }
        let (head, rest) = self.0.split_at(n as usize);
        self.0 = rest;
        Ok(head)
    }

    pub fn field(&mut self) -> Result<Option<(u32, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| bad("field number too large"))?;
        if tag == 0 {
            return Err(bad("field number 0"));
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("8 bytes"))),
            2 => {
                let n = self.varint()?;
                Value::Bytes(self.take(n)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            other => return Err(bad(&format!("wire type {other}"))),
        };
        Ok(Some((tag, value)))
    }
}

pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(tag) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// What a field of a message may be. Default values are left out, as proto3 does.
pub trait Field {
    fn put(&self, tag: u32, out: &mut Vec<u8>);
    fn take(&mut self, value: Value<'_>) -> Result<()>;
}

macro_rules! varint_field {
    ($($ty:ty),*) => { $(impl Field for $ty {
        fn put(&self, tag: u32, out: &mut Vec<u8>) {
            if *self != <$ty>::default() {
                put_varint(u64::from(tag) << 3, out);
                put_varint(*self as u64, out);
            }
        }
        fn take(&mut self, value: Value<'_>) -> Result<()> {
            let Value::Varint(v) = value else { return Err(bad("not a varint")) };
            *self = v as $ty;
            Ok(())
        }
    })* };
}
varint_field!(u64, i64, u32, i32);

impl Field for bool {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        u64::from(*self).put(tag, out);
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let mut v = 0u64;
        v.take(value)?;
        *self = v != 0;
        Ok(())
    }
}

impl Field for f64 {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        if *self != 0.0 {
            put_varint(u64::from(tag) << 3 | 1, out);
            out.extend_from_slice(&self.to_bits().to_le_bytes());
        }
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let Value::Fixed64(v) = value else { return Err(bad("not a double")) };
        *self = f64::from_bits(v);
        Ok(())
    }
}

impl Field for String {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_bytes(tag, self.as_bytes(), out);
        }
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let Value::Bytes(b) = value else { return Err(bad("not a string")) };
        *self = std::str::from_utf8(b).map_err(|_| bad("a string is not UTF-8"))?.to_string();
        Ok(())
    }
}

impl Field for Vec<u8> {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_bytes(tag, self, out);
        }
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let Value::Bytes(b) = value else { return Err(bad("not bytes")) };
        *self = b.to_vec();
        Ok(())
    }
}

impl Field for Vec<String> {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        self.iter().for_each(|s| put_bytes(tag, s.as_bytes(), out));
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let mut s = String::new();
        s.take(value)?;
        self.push(s);
        Ok(())
    }
}

/// Repeated numbers, packed as proto3 writes them; unpacked ones are read too.
impl Field for Vec<u64> {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            let mut packed = Vec::new();
            self.iter().for_each(|v| put_varint(*v, &mut packed));
            put_bytes(tag, &packed, out);
        }
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        match value {
            Value::Varint(v) => self.push(v),
            Value::Bytes(b) => {
                let mut reader = Reader(b);
                while !reader.0.is_empty() {
                    self.push(reader.varint()?);
                }
            }
            _ => return Err(bad("not packed numbers")),
        }
        Ok(())
    }
}

pub fn put_message<M: Message>(message: &M, tag: u32, out: &mut Vec<u8>) {
    // The length comes first and is not known yet: one byte is kept for it, and more are moved in when it is long.
    put_varint(u64::from(tag) << 3 | 2, out);
    let at = out.len();
    out.push(0);
    message.encode(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
    } else {
        let mut prefix = Vec::with_capacity(5);
        put_varint(length as u64, &mut prefix);
        out.splice(at..=at, prefix);
    }
}

impl<M: Message> Field for Vec<M> {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        self.iter().for_each(|m| put_message(m, tag, out));
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let Value::Bytes(b) = value else { return Err(bad("not a message")) };
        self.push(M::decode(b)?);
        Ok(())
    }
}

impl<M: Message> Field for Option<M> {
    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        if let Some(m) = self {
            put_message(m, tag, out);
        }
    }
    fn take(&mut self, value: Value<'_>) -> Result<()> {
        let Value::Bytes(b) = value else { return Err(bad("not a message")) };
        let message = self.get_or_insert_with(M::default);
        let mut reader = Reader(b);
        while let Some((tag, value)) = reader.field()? {
            message.merge(tag, value)?;
        }
        Ok(())
    }
}

/// A message that is always there; it is written even when empty.
macro_rules! always {
    ($($ty:ty),* $(,)?) => { $(impl $crate::pb::Field for $ty {
        fn put(&self, tag: u32, out: &mut Vec<u8>) {
            $crate::pb::put_message(self, tag, out);
        }
        fn take(&mut self, value: $crate::pb::Value<'_>) -> $crate::error::Result<()> {
            let mut some = Some(std::mem::take(self));
            $crate::pb::Field::take(&mut some, value)?;
            *self = some.unwrap_or_default();
            Ok(())
        }
    })* };
}
pub(crate) use always;

/// Declares a struct and its wire form in one place: `tag name: Type`.
macro_rules! message {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$fmeta:meta])* $tag:literal $field:ident: $ty:ty),* $(,)? })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
        impl $crate::pb::Message for $name {
            #[allow(unused_variables)]
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::pb::Field::put(&self.$field, $tag, out);)*
            }
            #[allow(unused_variables)]
            fn merge(&mut self, tag: u32, value: $crate::pb::Value<'_>) -> $crate::error::Result<()> {
                match tag {
                    $($tag => $crate::pb::Field::take(&mut self.$field, value),)*
                    _ => Ok(()),
                }
            }
        }
    )* };
}
pub(crate) use message;

#[cfg(test)]
mod tests {
    use super::*;

    message! {
        struct Inner { 1 text: String, 2 numbers: Vec<u64> }
        struct Outer { 1 id: u64, 2 inner: Option<Inner>, 3 list: Vec<Inner>, 4 blob: Vec<u8>, 5 sign: i32, 15 flag: bool, 16 ratio: f64 }
    }

    #[test]
    fn round_trip() {
        let inner = Inner { text: "x".repeat(300), numbers: vec![0, 1, u64::MAX] };
        let outer = Outer {
            id: 7,
            inner: Some(inner.clone()),
            list: vec![inner, Inner::default()],
            blob: vec![0; 200],
            sign: -1,
            flag: true,
            ratio: 0.5,
        };
        assert_eq!(Outer::decode(&outer.bytes()).unwrap(), outer);
    }

    #[test]
    fn known_bytes() {
        let outer = Outer { id: 150, blob: b"ab".to_vec(), ..Outer::default() };
        assert_eq!(outer.bytes(), [0x08, 0x96, 0x01, 0x22, 0x02, b'a', b'b']);
    }

    #[test]
    fn every_truncation_is_refused_or_shorter() {
        let outer =
            Outer { id: 1, inner: Some(Inner { text: "abc".into(), numbers: vec![5] }), ..Outer::default() };
        let bytes = outer.bytes();
        for n in 0..bytes.len() {
            if let Ok(short) = Outer::decode(&bytes[..n]) {
                assert_ne!(short, outer);
            }
        }
    }

    #[test]
    fn hostile_input() {
        assert!(Outer::decode(&[0xff; 11]).is_err(), "endless varint");
        assert!(Outer::decode(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err(), "length beyond the end");
        assert!(Outer::decode(&[0x0b]).is_err(), "groups are not proto3");
        assert!(Outer::decode(&[0x00]).is_err(), "field 0");
        assert_eq!(Outer::decode(&[0xf8, 0x07, 0x01]).unwrap(), Outer::default(), "unknown field is skipped");
    }
}
