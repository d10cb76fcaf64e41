//! The interface `call`.

use sipbox_core::policy::{
    CallError, Direction, Hook, RecordRouting, RouteOutcome, RoutePreset, RouteSignature,
};
use sipbox_core::record_route;
use sipbox_sip::{Params, Transport};

use crate::bindings::wit::call as wit;
use crate::bindings::wit::types::{Error, Transport as WitTransport};
use crate::cx::{ANYWHERE, CallCx, OF_REQUESTS};
use crate::dialogs::check_name;
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
            RouteOutcome::Foreign => wit::RouteResult::Foreign,
        })
    }

    fn route_signature(&mut self) -> wasmtime::Result<wit::SignatureResult> {
        self.enter()?;
        Ok(match self.call.facts.route_signature {
            RouteSignature::None => wit::SignatureResult::None,
            RouteSignature::Valid => wit::SignatureResult::Valid,
            RouteSignature::Invalid => wit::SignatureResult::Invalid,
            RouteSignature::Expired => wit::SignatureResult::Expired,
        })
    }

    fn route_params(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(text(self.raw_route_params()))
    }

    fn check_route_param(&mut self, pattern: String) -> wasmtime::Result<Result<bool, Error>> {
        self.enter()?;
        // Compiling takes some time of its own, which is the call's.
        self.stage(pattern.len())?;
        let compiled = match self.patterns.get(&pattern) {
            Ok(compiled) => compiled,
            Err(error) => return Ok(Err(Error::from(error))),
        };
        let matches = compiled.is_match(self.raw_route_params());
        Ok(Ok(matches))
    }

    fn record_route(
        &mut self,
        params: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(params.iter().map(|(n, v)| n.len() + v.len()).sum())?;
        let checked = self.may_record("record-route").and_then(|()| {
            params
                .iter()
                .try_for_each(|(name, value)| edit::check_route_param(name, value))
        });
        if checked.is_ok() {
            self.recorded = true;
            let state = self.call.state_mut();
            state.route_params.extend(params);
            state.record_route.get_or_insert_default();
        }
        Ok(checked.map_err(Error::from))
    }

    fn record_route_preset(
        &mut self,
        outbound: String,
        inbound: Option<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(outbound.len() + inbound.as_ref().map_or(0, String::len))?;
        let checked = self.may_record("record-route-preset").and_then(|()| {
            if self
                .call
                .state
                .record_route
                .as_ref()
                .is_some_and(|r| r.preset.is_some())
            {
                let other = "record-route-preset after that of another policy";
                return Err(CallError::OutOfPlace(other.to_owned()));
            }
            let texts = [Some(&outbound), inbound.as_ref()];
            texts
                .into_iter()
                .flatten()
                .try_for_each(|text| record_route::check_preset(text).map_err(CallError::Malformed))
        });
        if checked.is_ok() {
            self.recorded = true;
            let preset = RoutePreset { outbound, inbound };
            self.call.state_mut().record_route = Some(RecordRouting {
                preset: Some(Box::new(preset)),
            });
        }
        Ok(checked.map_err(Error::from))
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
            .only_in("add-route-param", &OF_REQUESTS)
            .and_then(|()| edit::check_route_param(&name, &value));
        if added.is_ok() {
            self.call.state_mut().route_params.push((name, value));
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
        let own = vars.iter().find(|(known, _)| self.is_own(known, &name));
        let found = own.or_else(|| vars.iter().find(|(known, _)| *known == name));
        Ok(found.map(|(_, value)| value.clone()))
    }

    fn set_var(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        self.stage(name.len() + value.len())?;
        let checked = self
            .only_in("set-var", &ANYWHERE)
            .and_then(|()| check_name("variable", &name));
        if let Err(error) = checked {
            return Ok(Err(Error::from(error)));
        }
        let name = if self.shared.contains(&name) {
            name
        } else {
            [&*name, OWN, &*self.policy].concat()
        };
        let vars = &mut self.call.state_mut().vars;
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

    fn classify_source(&mut self, asked: wit::SourceClass) -> wasmtime::Result<wit::SourceClass> {
        self.enter()?;
        Ok(self.classify(asked))
    }

    fn arm(&mut self, hooks: wit::Hooks) -> wasmtime::Result<Result<(), Error>> {
        self.enter()?;
        if let Err(error) = self.only_in("arm", &[Hook::Route, Hook::Request, Hook::Failure]) {
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

/// Between the name of a variable that is a policy's own and the policy's name. No name has
/// it, so nobody makes up another's.
const OWN: &str = "\n";

impl CallCx {
    /// Whether a variable is this policy's own of that name.
    fn is_own(&self, known: &str, name: &str) -> bool {
        let of = known.strip_prefix(name).and_then(|of| of.strip_prefix(OWN));
        of == Some(&*self.policy)
    }

    /// The parameters of our Route value without the first semicolon.
    fn raw_route_params(&self) -> &[u8] {
        let params = &self.call.facts.route_params[..];
        params.strip_prefix(b";").unwrap_or(params)
    }

    /// One Record-Route for each call of a hook.
    fn may_record(&self, what: &str) -> Result<(), CallError> {
        self.only_in(what, &OF_REQUESTS)?;
        if self.recorded {
            let again = format!("{what} a second time in one call");
            return Err(CallError::OutOfPlace(again));
        }
        Ok(())
    }
}
