//! Bytes of a fuzzer as choices.

/// What is left of the fuzzer's bytes; zeros after their end.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn quad(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// The next `len` bytes, or as many as there are.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// As [`Input::mutate`], with a few of the input's bytes.
    pub(crate) fn mutate_some(&mut self, base: Vec<u8>) -> Vec<u8> {
        let len = usize::from(self.byte() % 32);
        Input::new(self.bytes(len)).mutate(base)
    }

    /// `base` with some of its bytes changed, some put in and its end cut off, as the input says.
    pub(crate) fn mutate(&mut self, mut base: Vec<u8>) -> Vec<u8> {
        while !self.is_empty() && !base.is_empty() {
            let kind = self.byte();
            let at = self.long() as usize % base.len();
            match kind % 8 {
                0 => base.truncate(at),
                1 => {
                    let len = usize::from(self.byte());
                    base.splice(at..at, self.bytes(len).iter().copied());
                }
                2 => {
                    let len = usize::from(self.byte()).min(base.len() - at);
                    base.drain(at..at + len);
                }
                3 => {
                    for (byte, new) in base[at..].iter_mut().zip(self.quad().to_le_bytes()) {
                        *byte = new;
                    }
                }
                _ => base[at] = self.byte(),
            }
        }
        base
    }
}
