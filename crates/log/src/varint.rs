//! Unsigned LEB128 numbers with exactly one encoding each, and the cursor that reads them.

/// The most bytes a `u64` takes.
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Appends `value`, seven bits a byte, lowest first.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A place in hostile bytes. Each read names what is wrong when it can't be done.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or("record runs past the payload")?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.array::<1>()?[0])
    }

    /// Reads a number. Encodings longer than needed are refused, so equal records are equal bytes.
    pub(crate) fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for i in 0..MAX_VARINT_BYTES {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if i == MAX_VARINT_BYTES - 1 && bits > 1 {
                return Err("number above 64 bits");
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                if byte == 0 && i > 0 {
                    return Err("number not in its shortest form");
                }
                return Ok(value);
            }
        }
        Err("number longer than 10 bytes")
    }

    /// Reads a length-prefixed string of bytes of at most `max`.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<Vec<u8>, &'static str> {
        let len = self.varint()?;
        if len > max as u64 {
            return Err("byte string longer than its kind allows");
        }
        Ok(self.take(len as usize)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, put};

    #[test]
    fn round_trips_at_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(&mut out, value);
                let mut cursor = Cursor::new(&out);
                assert_eq!(cursor.varint(), Ok(value));
                assert!(cursor.is_empty());
            }
        }
    }

    #[test]
    fn refuses_second_encodings_and_overflow() {
        assert!(Cursor::new(&[0x80, 0x00]).varint().is_err());
        assert!(Cursor::new(&[0xff; 11]).varint().is_err());
        let mut over = [0xff; 10];
        over[9] = 0x02;
        assert!(Cursor::new(&over).varint().is_err());
        over[9] = 0x01;
        assert_eq!(Cursor::new(&over).varint(), Ok(u64::MAX));
        assert!(Cursor::new(&[0x80]).varint().is_err());
    }
}
