//! Where requests come from: addresses and networks with port and transport, as rows of
//! OpenSIPS's permissions have them.

use std::net::IpAddr;

use serde::Deserialize;
use sipbox_guest::{Source, Transport};

/// One address or network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    address: String,
    port: Option<u16>,
    transport: Option<Wire>,
}

/// A transport by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wire {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Wire {
    fn is(self, transport: Transport) -> bool {
        let of = match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp => Self::Tcp,
            Transport::Tls => Self::Tls,
            Transport::Ws => Self::Ws,
            Transport::Wss => Self::Wss,
        };
        self == of
    }
}

/// One of them, checked.
#[derive(Debug)]
pub(crate) struct Network {
    address: u128,
    mask: u128,
    is_v4: bool,
    port: Option<u16>,
    transport: Option<Wire>,
}

impl SourceSettings {
    pub(crate) fn check(&self) -> Result<Network, String> {
        let text = &self.address;
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.as_str(), None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(format!("`{text}` is no address and no network"));
        };
        let address = address.to_canonical();
        let (value, width) = number(address);
        let bits = match bits.map(str::parse::<u32>) {
            None => width,
            Some(Ok(bits)) if bits <= width => bits,
            Some(_) => return Err(format!("`{text}`: 0 to {width} bits")),
        };
        let mask = mask(width, bits);
        if value & !mask != 0 {
            return Err(format!(
                "`{text}` has bits behind the network's {bits}: an address or a network?"
            ));
        }
        if self.port == Some(0) {
            return Err(format!("`{text}`: port 0; leave it out for any"));
        }
        Ok(Network {
            address: value,
            mask,
            is_v4: address.is_ipv4(),
            port: self.port,
            transport: self.transport,
        })
    }
}

impl Network {
    pub(crate) fn has(&self, address: IpAddr, source: &Source<'_>) -> bool {
        self.is_v4 == address.is_ipv4()
            && number(address).0 & self.mask == self.address
            && self.port.is_none_or(|port| port == source.port)
            && self.transport.is_none_or(|wire| wire.is(source.transport))
    }
}

/// The address as a number, and its bits.
fn number(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

fn mask(width: u32, bits: u32) -> u128 {
    let all = u128::MAX.checked_shr(128 - width).unwrap_or(0);
    let behind = u128::MAX.checked_shr(128 - (width - bits)).unwrap_or(0);
    all & !behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_addresses() {
        let has = |network: &str, address: &str| {
            let settings = SourceSettings {
                address: network.into(),
                port: None,
                transport: None,
            };
            let source = Source {
                address,
                port: 5060,
                transport: Transport::Udp,
            };
            let network = settings.check().unwrap();
            network.has(address.parse().unwrap(), &source)
        };
        assert!(has("192.0.2.0/24", "192.0.2.255") && !has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.8"));
        assert!(has("0.0.0.0/0", "203.0.113.1") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::/0", "2001:db8::1") && !has("::/0", "192.0.2.1"));
        assert!(has("::1", "::1") && !has("::1", "::2"));
    }
}
