//! Our Record-Route (RFC 3261 16.6 step 4): what its values look like, and the signature
//! by which their parameters are known when they come back in a Route.
//!
//! Taking them off again is `routing`'s.

use std::hash::Hasher;
use std::time::Duration;

use sipbox_sip::{
    EditError, EditList, HeaderId, Message, Params, Parts, Scheme, Transport, Uri, reserved,
};

use crate::flow::TenantId;
use crate::gathered::Gathered;
use crate::ids::{Ids, TagText};
use crate::intake;
use crate::policy::{BranchRoute, CallState, Direction, Facts, RoutePreset};
use crate::settings::{Listener, Settings, push_param_text};
use crate::time::WallTime;

/// The parameter that names the tenant.
pub(crate) const TENANT: &str = "tn";
/// The parameter that carries the caller's tag (OpenSIPS's `append_fromtag`).
pub(crate) const FROM_TAG: &str = "ftag";
/// The mark of both values of a pair (OpenSIPS's `enable_double_rr`).
pub(crate) const PAIR: &str = "r2";
/// The parameter that signs the others.
pub(crate) const SIGNATURE: &str = "sig";

/// A parameter, as policies name it.
pub(crate) type Pairs = [(String, String)];

/// A Record-Route to insert.
pub(crate) struct RecordRoute<'a> {
    /// Parameters by who asked for them: of two with one name the later counts.
    pub(crate) params: [&'a Pairs; 3],
    /// What stands for our own addresses.
    pub(crate) preset: Option<&'a RoutePreset>,
    /// The tenant, named when there are several.
    pub(crate) tenant: TenantId,
    /// Whose tag is the caller's.
    pub(crate) direction: Direction,
    /// From when on the signature counts.
    pub(crate) now: WallTime,
}

impl<'a> RecordRoute<'a> {
    /// What verdict, transaction and branch ask for together.
    pub(crate) fn wanted(
        facts: &Facts,
        verdict: Option<&'a Pairs>,
        call: &'a CallState,
        branch: Option<&'a BranchRoute>,
    ) -> Option<Self> {
        let here = branch.and_then(|branch| branch.record_route.as_ref());
        let asked = here.or(call.record_route.as_ref());
        if verdict.is_none() && asked.is_none() {
            return None;
        }
        Some(Self {
            params: [
                verdict.unwrap_or_default(),
                &call.route_params,
                branch.map_or(&[], |branch| &branch.params),
            ],
            preset: asked.and_then(|asked| asked.preset.as_deref()),
            tenant: facts.tenant,
            direction: facts.direction,
            now: facts.now,
        })
    }

    /// Those that are written: of one name the last, at the place of the first.
    fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.params;
        let flat = move || all.into_iter().flatten();
        flat().enumerate().filter_map(move |(at, (name, _))| {
            let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
            if flat().take(at).any(|pair| same(&pair)) {
                return None;
            }
            let (_, value) = flat().rev().find(same)?;
            Some((name.as_str(), value.as_str()))
        })
    }
}

/// Puts our values on top. Where the request changes listeners, each side gets the one
/// that it can reach (RFC 5658): the upper names where the request leaves from, the
/// lower where it came to.
pub(crate) fn insert(
    request: Message<'_>,
    wanted: &RecordRoute<'_>,
    (arrived, leaves): (Option<&Listener>, &Listener),
    settings: &Settings,
    ids: &Ids,
    edits: &mut EditList,
    text: &mut Vec<u8>,
) -> Result<(), EditError> {
    let (upper, lower) = match wanted.preset {
        Some(preset) => (preset.outbound.as_str(), preset.inbound.as_deref()),
        None => {
            let other = arrived
                .filter(|_| settings.record_route.enable_double_rr)
                .filter(|l| l.sent_by != leaves.sent_by || l.transport != leaves.transport);
            let other = other.map(|listener| listener.hostport.as_str());
            (leaves.hostport.as_str(), other)
        }
    };
    let pair = lower.is_some();
    for host in lower.into_iter().chain([upper]) {
        text.clear();
        value(request, wanted, host, pair, settings, ids, text);
        edits.prepend_header(request, HeaderId::RecordRoute, text)?;
    }
    Ok(())
}

/// One value: `<sip:host;lr;...>`.
fn value(
    request: Message<'_>,
    wanted: &RecordRoute<'_>,
    host: &str,
    pair: bool,
    settings: &Settings,
    ids: &Ids,
    text: &mut Vec<u8>,
) {
    let options = &settings.record_route;
    let uri = Uri::parse(request.request_uri()).ok();
    // 16.6 step 4: who asked for a SIPS URI gets one.
    let secure = uri.is_some_and(|uri| matches!(uri.scheme, Scheme::Sips));
    let begin = text.len() + 1;
    text.extend_from_slice(if secure { b"<sips:" } else { b"<sip:" });
    if let Some(user) = uri
        .filter(|_| options.add_username)
        .and_then(|uri| uri.user)
    {
        text.extend_from_slice(user);
        text.push(b'@');
    }
    text.extend_from_slice(host.as_bytes());
    if pair {
        push(PAIR, "on", text);
    }
    push("lr", if options.enable_full_lr { "on" } else { "" }, text);
    if settings.tenants().len() > 1
        && let Some(tenant) = settings.tenant(wanted.tenant)
    {
        for part in [";", TENANT, "=", &tenant.param] {
            text.extend_from_slice(part.as_bytes());
        }
    }
    let caller = callers_tag(request, wanted.direction);
    if options.append_fromtag && !caller.is_empty() {
        text.push(b';');
        text.extend_from_slice(FROM_TAG.as_bytes());
        text.push(b'=');
        push_param_text(caller, text);
    }
    for (name, value) in wanted.pairs() {
        push(name, value, text);
    }
    if options.sign {
        let written = Written::at(wanted.now);
        let own = Uri::parse(text.get(begin..).unwrap_or_default());
        let call_id = request.call_id().unwrap_or_default();
        let signature = own.map(|own| signature(&own, call_id, caller, written, ids));
        if let Ok(signature) = signature {
            push(SIGNATURE, signature.as_str(), text);
            text.extend_from_slice(&written.text());
        }
    }
    text.push(b'>');
}

/// `;name=value`, or `;name`.
fn push(name: &str, value: &str, text: &mut Vec<u8>) {
    text.push(b';');
    push_param_text(name.as_bytes(), text);
    if !value.is_empty() {
        text.push(b'=');
        push_param_text(value.as_bytes(), text);
    }
}

/// The tag of who began the dialog: From's, but To's in requests of the other side.
fn callers_tag(request: Message<'_>, direction: Direction) -> &[u8] {
    let of = match direction {
        Direction::Upstream => HeaderId::To,
        Direction::Downstream | Direction::Unknown => HeaderId::From,
    };
    intake::tag(request, of).unwrap_or_default()
}

/// When a signature was made, in steps of 1024 seconds; after two years the count begins
/// again.
#[derive(Clone, Copy)]
struct Written(u16);

impl Written {
    const STEP: u64 = 1024;

    fn at(now: WallTime) -> Self {
        // The lower bits are what is wanted.
        Self(((now.seconds() / Self::STEP) & u64::from(u16::MAX)) as u16)
    }

    fn text(self) -> [u8; 4] {
        let digit = |shift: u16| {
            let digit = u32::from(self.0 >> shift & 15);
            char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8)
        };
        [digit(12), digit(8), digit(4), digit(0)]
    }

    fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text)
            .ok()
            .filter(|text| text.len() == 4)?;
        u16::from_str_radix(text, 16).ok().map(Self)
    }

    /// How long ago that was, to the step. What seems to come from the future was written
    /// by a clock that is before ours.
    fn age(self, now: WallTime) -> Duration {
        let age = Self::at(now).0.wrapping_sub(self.0);
        let age = if age > u16::MAX - 64 { 0 } else { age };
        Duration::from_secs(u64::from(age) * Self::STEP)
    }
}

/// What signs a value of ours. `lr` and the transport are left out: user agents are
/// known to rewrite the former, and of two names of one address either will do.
fn signature(own: &Uri<'_>, call_id: &[u8], caller: &[u8], written: Written, ids: &Ids) -> TagText {
    let mut signed = Gathered::new(ids.route_hasher());
    signed.lower(own.host_raw);
    signed.part(&own.port.unwrap_or_default().to_be_bytes());
    signed.part(&written.0.to_be_bytes());
    signed.part(call_id);
    signed.part(caller);
    for param in own.params.into_iter().filter(|param| is_signed(param.name)) {
        signed.lower(param.name);
        signed.part(param.value.unwrap_or_default());
    }
    TagText::of(signed.hasher().finish())
}

fn is_signed(name: &[u8]) -> bool {
    let left_out: [&[u8]; 4] = [b"lr", b"transport", b"maddr", SIGNATURE.as_bytes()];
    !left_out
        .iter()
        .any(|other| other.eq_ignore_ascii_case(name))
}

/// Whether a value of ours has parameters that mean something.
pub(crate) fn says_something(params: Params<'_>) -> bool {
    params.into_iter().any(|param| is_signed(param.name))
}

/// What a signature proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Which way the request goes: the caller's tag that was signed is its From tag or its
    /// To tag.
    pub(crate) direction: Direction,
    /// How long ago it was signed, to 17 minutes.
    pub(crate) age: Duration,
}

/// Whether a value is one that we wrote for this dialog.
pub(crate) fn verify(
    own: &Uri<'_>,
    message: Message<'_>,
    parts: &Parts,
    now: WallTime,
    ids: &Ids,
) -> Option<Proof> {
    let found = own.params.get(SIGNATURE.as_bytes())?;
    let (found, written) = found.split_at_checked(TagText::LEN)?;
    let written = Written::read(written)?;
    let call_id = message.call_id().unwrap_or_default();
    let signed_for = |caller: &[u8]| {
        let signature = signature(own, call_id, caller, written, ids);
        // In constant time: who guesses learns nothing from how long it takes.
        bool::from(subtle::ConstantTimeEq::ct_eq(
            signature.as_str().as_bytes(),
            found,
        ))
    };
    let direction = if signed_for(message.get(parts.from.tag)) {
        Direction::Downstream
    } else if signed_for(message.get(parts.to.tag)) {
        Direction::Upstream
    } else {
        return None;
    };
    let age = written.age(now);
    Some(Proof { direction, age })
}

/// OpenSIPS's `is_direction`: what `ftag` tells where nothing is signed.
pub(crate) fn direction(params: Params<'_>, message: Message<'_>, parts: &Parts) -> Direction {
    let Some(found) = params.get(FROM_TAG.as_bytes()) else {
        return Direction::Unknown;
    };
    let mut own = Vec::with_capacity(found.len());
    push_param_text(message.get(parts.from.tag), &mut own);
    if own == found {
        Direction::Downstream
    } else {
        Direction::Upstream
    }
}

/// Whether the URI is one of a pair.
pub(crate) fn is_paired(uri: &Uri<'_>) -> bool {
    uri.params.get(PAIR.as_bytes()) == Some(b"on")
}

/// Checks a parameter that a policy wants in our Record-Route.
///
/// # Errors
/// The name, if it is the host's own.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    reserved::route_param(name).map_or(Ok(()), Err)
}

/// Checks what shall stand for the address of a listener: `host[:port][;params]`.
///
/// # Errors
/// What is wrong with it.
pub fn check_preset(text: &str) -> Result<(), String> {
    let uri = format!("sip:{text}");
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"<>\"?@,".contains(&b));
    let parsed = Uri::parse(uri.as_bytes()).ok().filter(|_| plain);
    let Some(parsed) = parsed.filter(|uri| uri.user.is_none() && uri.headers.is_empty()) else {
        return Err(format!("`{text}` is no host[:port][;params]"));
    };
    for param in parsed.params {
        let name = String::from_utf8_lossy(param.name);
        let known = name.eq_ignore_ascii_case("transport");
        if known && param.value.and_then(Transport::from_token).is_none() {
            return Err(format!("`{text}` names no transport that there is"));
        }
        if let (false, Err(reserved)) = (known, check_name(&name)) {
            return Err(format!("`{reserved}` in `{text}` is the host's own"));
        }
    }
    Ok(())
}
