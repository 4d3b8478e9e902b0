//! The encoding of values in etcd: big-endian integers, and strings of bytes after their 32-bit length. Every length is
//! compared with what is there before memory is taken for it.

/// Writes a value.
#[derive(Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

/// Reads a value; each method returns `None` where the bytes end too early.
pub(super) struct Decoder<'b>(pub(super) &'b [u8]);

impl Encoder {
    pub(super) fn u64(&mut self, number: u64) -> &mut Self {
        self.fixed(&number.to_be_bytes())
    }

    pub(super) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Longer than 4 GiB is nothing here: the length is saturated, and the reader refuses it.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.fixed(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()).fixed(bytes)
    }
}

impl<'b> Decoder<'b> {
    pub(super) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(u32::from_be_bytes(self.fixed()?)).ok()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    pub(super) fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A number of items that follow, each of at least `least` bytes.
    pub(super) fn count(&mut self, least: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count.checked_mul(least)? <= self.0.len()).then_some(count)
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
