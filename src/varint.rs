//! Variable-length integers of Protocol Buffers (https://protobuf.dev/programming-guides/encoding/#varints): groups of seven bits, the
//! lowest first.

/// Longest encoding in bytes: of 64 bits.
const MAX_BYTES: usize = 10;

/// Reads an integer; returns it with the number of its bytes. `None` if it does not end, or has more than 64 bits.
#[inline]
pub fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    // Nearly all of them: tags below 16, short lengths, codes.
    if let Some(byte) = bytes.first().filter(|byte| **byte < 0x80) {
        return Some((u64::from(*byte), 1));
    }
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(MAX_BYTES).enumerate() {
        if index == MAX_BYTES - 1 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Reads an integer in its shortest form; returns it with the remaining bytes.
pub fn read_shortest(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (value, length) = read(bytes)?;
    (length == 1 || bytes[length - 1] != 0).then(|| (value, &bytes[length..]))
}

/// Writes an integer in its shortest form.
#[inline]
pub fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_from_their_shortest_form() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!((out.as_slice(), read(bytes)), (bytes, Some((value, bytes.len()))));
            assert_eq!(read_shortest(&[bytes, b"rest"].concat()), Some((value, &b"rest"[..])));
        }
    }

    #[test]
    fn what_has_no_end_or_too_many_bits_is_none_and_a_longer_form_is_not_the_shortest() {
        for bytes in
            [&[][..], &[0x80], &[0xff; 9], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
        assert_eq!((read(&[0x81, 0]), read_shortest(&[0x81, 0])), (Some((1, 2)), None));
    }
}
