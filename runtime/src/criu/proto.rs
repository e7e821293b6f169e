//! As much of the protobuf encoding as criu's RPC needs: numbers and byte strings.

/// A message being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    /// int32, uint32, enum. A negative int32 takes ten bytes, as the encoding wants it.
    pub fn int(&mut self, field: u32, n: i64) -> &mut Message {
        self.varint(u64::from(field) << 3);
        self.varint(n as u64);
        self
    }

    pub fn bool(&mut self, field: u32, on: bool) -> &mut Message {
        self.int(field, i64::from(on))
    }

    pub fn text(&mut self, field: u32, text: &str) -> &mut Message {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(&mut self, field: u32, message: &Message) -> &mut Message {
        self.bytes(field, &message.0)
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Message {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A field's value as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    pub fn int(self) -> i64 {
        match self {
            Value::Int(n) => n,
            Value::Bytes(_) => 0,
        }
    }

    pub fn text(self) -> String {
        match self {
            Value::Int(n) => n.to_string(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// The fields of a message, in order. `None` where it is cut short or has what nobody sends.
pub fn fields(mut rest: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Value::Int(varint(&mut rest)? as i64),
            1 => Value::Bytes(take(&mut rest, 8)?),
            2 => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                Value::Bytes(take(&mut rest, len)?)
            }
            5 => Value::Bytes(take(&mut rest, 4)?),
            _ => return None,
        };
        fields.push((u32::try_from(tag >> 3).ok()?, value));
    }
    Some(fields)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Message::default();
        inner.text(1, "network").int(2, 1 << 30);
        let mut outer = Message::default();
        outer.int(1, -1).bool(3, true).message(38, &inner);
        let all = fields(outer.as_bytes()).unwrap();
        assert_eq!(all[..2], [(1, Value::Int(-1)), (3, Value::Int(1))]);
        let (38, Value::Bytes(bytes)) = all[2] else { panic!("{all:?}") };
        assert_eq!(fields(bytes).unwrap(), [(1, Value::Bytes(b"network")), (2, Value::Int(1 << 30))]);
    }

    #[test]
    fn the_encoding_of_the_specification() {
        // Examples of the protobuf documentation.
        assert_eq!(Message::default().int(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").as_bytes(), b"\x12\x07testing");
        assert_eq!(
            Message::default().int(1, -2).as_bytes()[1..],
            [0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]
        );
    }

    #[test]
    fn what_is_broken_is_refused() {
        for bytes in [&b"\x08"[..], b"\x12\x07test", b"\x0b", &[0x08; 1], &[0xff; 11]] {
            assert_eq!(fields(bytes), None, "{bytes:?}");
        }
        assert_eq!(fields(b""), Some(vec![]));
    }
}
