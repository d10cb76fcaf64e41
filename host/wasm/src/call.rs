//! The interface `call`.

use std::net::IpAddr;

use sipbox_core::policy::{CallError, Direction, Hook, RouteOutcome};
use sipbox_sip::{Contact, Host as SipHost, Params, Transport};

use crate::bindings::wit::call as wit;
use crate::bindings::wit::types::{Error, Transport as WitTransport};
use crate::cx::CallCx;
use crate::edit;
use crate::message::text;
use crate::view::time;

impl wit::Host for CallCx {
    fn source(&mut self) -> wasmtime::Result<wit::SourceAddress> {
        self.enter()?;
        let flow = &self.call.facts.flow;
        Ok(wit::SourceAddress {
            address: flow.peer.ip().to_string(),
            port: flow.peer.port(),
            transport: match flow.transport {
                Transport::Udp => WitTransport::Udp,
                Transport::Tcp | Transport::Sctp => WitTransport::Tcp,
                Transport::Tls | Transport::TlsSctp => WitTransport::Tls,
                Transport::Ws => WitTransport::Ws,
                Transport::Wss => WitTransport::Wss,
            },
        })
    }

    fn listener(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.call.facts.listener_name.to_string())
    }

    fn tenant(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(self.call.facts.tenant_name.to_string())
    }

    fn now(&mut self) -> wasmtime::Result<wit::Time> {
        self.enter()?;
        let (seconds, milliseconds) = time(self.call.facts.now);
        Ok(wit::Time {
            seconds,
            milliseconds,
        })
    }

    fn in_dialog(&mut self) -> wasmtime::Result<bool> {
        self.enter()?;
        Ok(self.call.facts.in_dialog)
    }

    fn direction(&mut self) -> wasmtime::Result<wit::DialogDirection> {
        self.enter()?;
        Ok(match self.call.facts.direction {
            Direction::Unknown => wit::DialogDirection::Unknown,
            Direction::Downstream => wit::DialogDirection::Downstream,
            Direction::Upstream => wit::DialogDirection::Upstream,
        })
    }

    fn route_outcome(&mut self) -> wasmtime::Result<wit::RouteResult> {
        self.enter()?;
        Ok(match self.call.facts.route_outcome {
            RouteOutcome::None => wit::RouteResult::None,
            RouteOutcome::Loose => wit::RouteResult::Loose,
            RouteOutcome::Strict => wit::RouteResult::Strict,
            RouteOutcome::Preloaded => wit::RouteResult::Preloaded,
        })
    }

    fn route_param(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(Params::new(&self.call.facts.route_params)
            .get(name.as_bytes())
            .map(text))
    }

    fn add_route_param(
        &mut self,
        name: String,
        value: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(name.len() + value.len())?;
        let added = self
            .only_in("add-route-param", &[Hook::Request, Hook::Failure])
            .and_then(|()| edit::check_param(&name, &value))
            .and_then(|()| {
                // `lr` is what makes the route a loose one (RFC 3261 16.6, step 4).
                if name.eq_ignore_ascii_case("lr") {
                    Err(CallError::Protected("lr".to_owned()))
                } else {
                    Ok(())
                }
            });
        if added.is_ok() {
            self.state_mut().route_params.push((name, value));
        }
        Ok(added.map_err(Error::from))
    }

    fn authenticated_user(&mut self) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        Ok(self.call.state.authenticated_user.clone())
    }

    fn var(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        let vars = &self.call.state.vars;
        Ok(vars
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone()))
    }

    fn set_var(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(name.len() + value.len())?;
        if let Err(error) = self.only_in(
            "set-var",
            &[Hook::Request, Hook::Branch, Hook::Reply, Hook::Failure],
        ) {
            return Ok(Err(Error::from(error)));
        }
        let vars = &mut self.state_mut().vars;
        if let Some((_, old)) = vars.iter_mut().find(|(known, _)| *known == name) {
            *old = value;
        } else if vars.len() >= MAX_VARS {
            let error = CallError::Limit(format!("{MAX_VARS} variables of a transaction"));
            return Ok(Err(Error::from(error)));
        } else {
            vars.push((name, value));
        }
        Ok(Ok(()))
    }

    fn classify_source(&mut self) -> wasmtime::Result<wit::SourceClass> {
        self.enter()?;
        Ok(self.classify())
    }

    fn arm(&mut self, hooks: wit::Hooks) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        if let Err(error) = self.only_in("arm", &[Hook::Request, Hook::Failure]) {
            return Ok(Err(Error::from(error)));
        }
        let armed = &mut self.call.armed;
        armed.branch |= hooks.contains(wit::Hooks::BRANCH);
        armed.reply |= hooks.contains(wit::Hooks::REPLY);
        armed.failure |= hooks.contains(wit::Hooks::FAILURE);
        Ok(Ok(()))
    }
}

/// Variables that a transaction can hold; with the limit of bytes for each hook
/// this bounds what a policy makes it keep.
const MAX_VARS: usize = 64;

impl CallCx {
    fn classify(&self) -> wit::SourceClass {
        let message = self.message();
        let peer = self.call.facts.flow.peer;
        let ip = peer.ip().to_canonical();
        let mut class = wit::SourceClass::empty();
        let mut set = |flag, holds: bool| {
            if holds {
                class |= flag;
            }
        };
        set(wit::SourceClass::PRIVATE_SOURCE, is_private(ip));
        set(wit::SourceClass::LOOPBACK, ip.is_loopback());
        set(wit::SourceClass::IPV6, ip.is_ipv6());
        if let Ok(via) = message.via_top() {
            let host = via.host.ip();
            // A name cannot be compared: only a literal address tells.
            set(
                wit::SourceClass::VIA_MISMATCH,
                host.is_some_and(|host| host != ip),
            );
            set(wit::SourceClass::PRIVATE_VIA, host.is_some_and(is_private));
            let port = via
                .port
                .unwrap_or_else(|| self.call.facts.flow.transport.default_port());
            set(wit::SourceClass::PORT_MISMATCH, port != peer.port());
        }
        if let Some(Ok(Contact::Addr(contact))) = message.contacts().next() {
            let host = SipHost::ip(&contact.uri.host);
            set(
                wit::SourceClass::PRIVATE_CONTACT,
                host.is_some_and(is_private),
            );
            set(
                wit::SourceClass::CONTACT_MISMATCH,
                host.is_some_and(|host| host != ip),
            );
        }
        class
    }
}

/// Private by RFC 1918, RFC 6598 (carrier-grade NAT) or RFC 4193.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_those_of_the_rfcs() {
        for (ip, private) in [
            ("10.0.0.1", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.3.4", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("127.0.0.1", false),
            ("198.51.100.1", false),
            ("fd00::1", true),
            ("2001:db8::1", false),
            ("::ffff:10.0.0.1", true),
        ] {
            assert_eq!(is_private(ip.parse().unwrap()), private, "{ip}");
        }
    }
}
