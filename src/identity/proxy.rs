//! The PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2): a connection's peer, stated by a load balancer before the
//! connection's own bytes. Strict, and bounded: TCP over IPv4 or IPv6, and nothing else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes up to the addresses.
const HEAD: usize = 16;
/// Maximum length of the rest: addresses and some hundred bytes of further values.
const MAX_REST: usize = 1_024;
/// Type of the value that is a CRC-32C of the complete header.
const CRC32C: u8 = 3;

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The balancer itself is the peer: a health probe.
    Local,
    /// The peer's address.
    From(SocketAddr),
}

/// The reason that a header is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended or broke before a byte of it.
    #[error("nothing was sent")]
    NoAddress,
    /// It broke in the middle.
    #[error("the header broke off: {0}")]
    Broken(io::Error),
    /// It is not such a header, or one that is not supported here.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Reads a header, and not a byte more. Has no time limit of its own.
///
/// # Errors
/// The bytes are not a header of version 2, not TCP, too long, damaged, or name no address.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProxyHeader, ProxyError> {
    let mut head = [0; HEAD];
    let first = stream.read(&mut head).await.unwrap_or(0);
    if first == 0 {
        return Err(ProxyError::NoAddress);
    }
    stream.read_exact(&mut head[first..]).await.map_err(ProxyError::Broken)?;
    let rest = rest_of(&head)?;
    let mut whole = vec![0; HEAD + rest];
    whole[..HEAD].copy_from_slice(&head);
    stream.read_exact(&mut whole[HEAD..]).await.map_err(ProxyError::Broken)?;
    parse(&whole)
}

/// Returns how many bytes follow a header's first ones.
fn rest_of(head: &[u8; HEAD]) -> Result<usize, ProxyError> {
    if head[..12] != SIGNATURE {
        return Err(ProxyError::Invalid("it is no PROXY header of version 2"));
    }
    match usize::from(u16::from_be_bytes([head[14], head[15]])) {
        rest if rest <= MAX_REST => Ok(rest),
        _ => Err(ProxyError::Invalid("the PROXY header is too long")),
    }
}

/// Parses a complete header.
///
/// # Errors
/// As [`read`].
pub fn parse(whole: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let Some((head, rest)) = whole.split_first_chunk::<HEAD>() else {
        return Err(ProxyError::Invalid("the PROXY header is too short"));
    };
    if rest_of(head)? != rest.len() {
        return Err(ProxyError::Invalid("the PROXY header has another length than it says"));
    }
    let short = || ProxyError::Invalid("the PROXY header has no room for its addresses");
    let (said, values) = match (head[12], head[13]) {
        // Anything after it is skipped.
        (0x20, _) => return Ok(ProxyHeader::Local),
        (0x21, 0x11) => {
            let (addresses, values) = rest.split_first_chunk::<12>().ok_or_else(short)?;
            let [a, b, c, d, .., high, low, _, _] = *addresses;
            (source(Ipv4Addr::new(a, b, c, d).into(), [high, low])?, values)
        }
        (0x21, 0x21) => {
            let (addresses, values) = rest.split_first_chunk::<36>().ok_or_else(short)?;
            let mut from = [0; 16];
            from.copy_from_slice(&addresses[..16]);
            (source(Ipv6Addr::from(from).to_canonical(), [addresses[32], addresses[33]])?, values)
        }
        (0x21, _) => return Err(ProxyError::Invalid("the PROXY header is not of TCP over IPv4 or IPv6")),
        _ => return Err(ProxyError::Invalid("the PROXY header has another version or command")),
    };
    check_values(whole, whole.len() - values.len())?;
    Ok(said)
}

fn source(ip: IpAddr, port: [u8; 2]) -> Result<ProxyHeader, ProxyError> {
    let port = u16::from_be_bytes(port);
    if ip.is_unspecified() || ip.is_multicast() || port == 0 {
        return Err(ProxyError::Invalid("the PROXY header names no peer"));
    }
    Ok(ProxyHeader::From(SocketAddr::new(ip, port)))
}

/// Checks the values after the addresses: their form, and the checksum if there is one.
fn check_values(whole: &[u8], mut at: usize) -> Result<(), ProxyError> {
    let broken = || ProxyError::Invalid("the PROXY header's values are malformed");
    while at < whole.len() {
        let (kind, high, low) = match whole.get(at..at + 3) {
            Some([kind, high, low]) => (*kind, *high, *low),
            _ => return Err(broken()),
        };
        let end = at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let value = whole.get(at + 3..end).ok_or_else(broken)?;
        if kind == CRC32C {
            let said: [u8; 4] = value.try_into().map_err(|_| broken())?;
            let mut zeroed = whole.to_vec();
            zeroed[at + 3..end].fill(0);
            if crc32c::crc32c(&zeroed) != u32::from_be_bytes(said) {
                return Err(ProxyError::Invalid("the PROXY header's checksum is wrong"));
            }
        }
        at = end;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut all = SIGNATURE.to_vec();
        all.extend([command, family]);
        all.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        all.extend(rest);
        all
    }

    const V4: [u8; 12] = [10, 20, 0, 7, 10, 0, 0, 1, 0xc3, 0x50, 0x1d, 0x13];

    #[test]
    fn d5_headers_of_tcp_are_read_and_all_else_is_refused() {
        let peer = ProxyHeader::From("10.20.0.7:50000".parse().unwrap());
        assert_eq!(parse(&header(0x21, 0x11, &V4)).unwrap(), peer);
        let mut mapped = vec![0; 10];
        mapped.extend([0xff, 0xff, 10, 20, 0, 7]);
        mapped.extend([0; 16]);
        mapped.extend([0xc3, 0x50, 0x1d, 0x13]);
        assert_eq!(parse(&header(0x21, 0x21, &mapped)).unwrap(), peer);
        assert_eq!(parse(&header(0x20, 0x00, &[])).unwrap(), ProxyHeader::Local);
        let nobody = [0, 0, 0, 0, 10, 0, 0, 1, 0xc3, 0x50, 0x1d, 0x13];
        let long = vec![0; MAX_REST + 1];
        for (command, family, rest) in [
            (0x11, 0x11, V4.as_slice()), // version 1
            (0x22, 0x11, &V4),           // no such command
            (0x21, 0x12, &V4),           // UDP
            (0x21, 0x31, &V4),           // a Unix socket
            (0x21, 0x00, &V4),           // unspecified
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x21, &V4),
            (0x21, 0x11, &nobody),
            (0x20, 0x00, &long),
        ] {
            assert!(parse(&header(command, family, rest)).is_err(), "{command:x} {family:x} {rest:?}");
        }
        let mut other = header(0x21, 0x11, &V4);
        other[3] = 0;
        assert!(parse(&other).is_err() && parse(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n").is_err());
        other = header(0x21, 0x11, &V4);
        other.push(0);
        assert!(parse(&other).is_err(), "a byte too many");
    }

    #[test]
    fn d5_values_are_checked_and_so_is_the_checksum() {
        let with = |values: &[u8]| header(0x21, 0x11, &[V4.as_slice(), values].concat());
        let mut summed = with(&[4, 0, 1, 9, CRC32C, 0, 4, 0, 0, 0, 0]);
        let sum = crc32c::crc32c(&summed).to_be_bytes();
        let at = summed.len() - 4;
        summed[at..].copy_from_slice(&sum);
        assert!(parse(&summed).is_ok());
        summed[17] ^= 1;
        assert!(parse(&summed).is_err(), "another address");
        for values in [&[4, 0][..], &[4, 0, 2, 9], &[CRC32C, 0, 1, 0]] {
            assert!(parse(&with(values)).is_err(), "{values:?}");
        }
    }

    #[tokio::test]
    async fn d5_no_byte_of_the_connection_itself_is_taken() {
        let bytes = [header(0x21, 0x11, &V4), b"\x16\x03".to_vec()].concat();
        let mut stream = bytes.as_slice();
        assert!(matches!(read(&mut stream).await, Ok(ProxyHeader::From(_))));
        assert_eq!(stream, b"\x16\x03");
        assert!(matches!(read(&mut [].as_slice()).await, Err(ProxyError::NoAddress)));
        assert!(matches!(read(&mut bytes[..20].as_ref()).await, Err(ProxyError::Broken(_))));
    }
}
