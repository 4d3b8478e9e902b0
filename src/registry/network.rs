//! Networks in CIDR notation (RFC 4632, RFC 4291).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::IpAddr;

/// Bits of the prefix `::ffff:0:0/96`, which contains the IPv4 addresses in IPv6 notation.
const MAPPED_BITS: u8 = 96;

/// A network, `10.20.0.0/16` or `2001:db8::/32`. A network in IPv4-mapped notation is the IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Parses `address/bits`; an address alone is a network of one.
    ///
    /// # Errors
    /// The text describes the form of a network.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network: write 10.20.0.0/16");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most {
            return Err(wrong());
        }
        let IpAddr::V6(six) = address else { return Ok(Network { address, bits }) };
        match six.to_ipv4_mapped() {
            None => Ok(Network { address, bits }),
            // An IPv4 network in IPv6 notation is that network (RFC 4291, section 2.5.5.2); otherwise all of it would
            // be compared with 32 bits of an address. A shorter prefix contains more than IPv4, which nobody means.
            Some(four) if bits >= MAPPED_BITS => Ok(Network { address: four.into(), bits: bits - MAPPED_BITS }),
            Some(_) => Err(wrong()),
        }
    }

    /// Returns whether it contains another network completely.
    pub fn contains(&self, other: &Network) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4() && self.bits <= other.bits && self.has(other.address)
    }

    /// Returns whether it contains an address. An IPv4 address written as IPv6 (`::ffff:…`) counts as the IPv4 one.
    pub fn has(&self, address: IpAddr) -> bool {
        let same = |own: u128, other: u128, width: u32| {
            let shift = width.saturating_sub(u32::from(self.bits));
            shift >= width || own >> shift == other >> shift
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Network::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn t3_a_network_in_mapped_notation_is_the_ipv4_network_and_no_more() {
        let parse = |text: &str| Network::parse(text).unwrap();
        let one = parse("::ffff:10.20.0.5");
        assert_eq!((one, one.to_string().as_str()), (parse("10.20.0.5/32"), "10.20.0.5/32"));
        assert!(one.has("10.20.0.5".parse().unwrap()) && one.has("::ffff:10.20.0.5".parse().unwrap()));
        assert!(!one.has("203.0.113.9".parse().unwrap()) && !one.has("10.20.0.6".parse().unwrap()));
        let wide = parse("::ffff:10.0.0.0/104");
        assert!(wide == parse("10.0.0.0/8") && !wide.has("11.0.0.1".parse().unwrap()));
        assert!(wide.contains(&one) && !one.contains(&wide) && !parse("10.20.0.0/24").contains(&wide));
        for wrong in ["::ffff:10.0.0.0/95", "::ffff:10.0.0.0/8", "::ffff:0.0.0.0/0", "::ffff:10.0.0.1/129"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_has_its_own_addresses_only() {
        let has = |network: &str, address: &str| Network::parse(network).unwrap().has(address.parse().unwrap());
        assert!(has("10.20.0.0/16", "10.20.255.1") && !has("10.20.0.0/16", "10.21.0.1"));
        assert!(has("10.20.0.1", "10.20.0.1") && !has("10.20.0.1", "10.20.0.2"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3") && has("2001:db8::/32", "2001:db8:1::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "x/8", "10.0.0.0/", "::/129"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }
}
