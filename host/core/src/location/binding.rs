//! Bindings as values, and how a 200 lists them.

use std::fmt::Write;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::flow::Flow;
use crate::policy::BindingFlags;
use crate::time::WallTime;

/// The bindings of one address of record, best q first, then the latest.
pub type Bindings = SmallVec<[Arc<Binding>; 4]>;

/// One contact that an address of record is bound to. Immutable: a refresh puts
/// a new value in its place, so that readers keep what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Stays the same from the first registration to the last refresh, and over restarts.
    pub id: u64,
    /// The Contact URI.
    pub contact: Box<str>,
    /// Preference in thousandths.
    pub q: u16,
    /// When it ends; [`Binding::PERMANENT`] never comes.
    pub expires: WallTime,
    /// Path values, first hop first (RFC 3327).
    pub path: SmallVec<[Box<str>; 1]>,
    /// Where the REGISTER came from, as a URI; empty for one that an operator made, or
    /// that another host registered.
    pub received: Box<str>,
    /// The flow that registered it; `None` when that is not known any more: an
    /// operator made it, or its connection ended with an earlier process. Nor has one that
    /// another host registered any.
    pub flow: Option<Flow>,
    /// `+sip.instance`, without its quotes (RFC 5626 section 4.1).
    pub instance: Option<Box<str>>,
    /// `reg-id` (RFC 5626 section 4.2).
    pub reg_id: Option<u32>,
    /// Call-ID of the REGISTER.
    pub call_id: Box<str>,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its User-Agent.
    pub user_agent: Box<str>,
    /// What its Allow names, in OpenSIPS's bits; see [`super::method_mask`].
    pub methods: Option<u32>,
    /// Its marks, for pings.
    pub flags: BindingFlags,
    /// When it was last written.
    pub last_modified: WallTime,
    /// The socket that received it, such as `udp:192.0.2.1:5060`.
    pub socket: Arc<str>,
    /// Grows with every write; the later one is the newer one.
    pub sequence: u64,
}

impl Binding {
    /// The end of a binding that has none.
    pub const PERMANENT: WallTime = WallTime(u64::MAX);

    /// Whether it holds at that time.
    #[must_use]
    pub fn holds(&self, wall: WallTime) -> bool {
        self.expires > wall
    }

    /// Seconds left, the begun one counted; at most 2^32-1.
    #[must_use]
    pub fn remaining(&self, wall: WallTime) -> u32 {
        let left = self.expires.0.saturating_sub(wall.0).div_ceil(1000);
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

/// The order of a target set: best q first, then the latest.
pub(super) fn sort(bindings: &mut Bindings) {
    bindings.sort_by(|a, b| b.q.cmp(&a.q).then(b.sequence.cmp(&a.sequence)));
}

/// The Contact values of a 200 to REGISTER: every current binding with the
/// seconds that it has left (RFC 3261 section 10.3, step 8).
#[must_use]
pub fn contact_header_values(bindings: &[Arc<Binding>], wall: WallTime) -> Vec<String> {
    bindings
        .iter()
        .filter(|b| b.holds(wall))
        .map(|b| contact_value(b, wall))
        .collect()
}

fn contact_value(binding: &Binding, wall: WallTime) -> String {
    let mut text = String::with_capacity(binding.contact.len().saturating_add(48));
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "<{}>;expires={}",
        binding.contact,
        binding.remaining(wall)
    );
    if binding.q < 1000 {
        let _ = write!(text, ";q=0.{:03}", binding.q);
        while text.ends_with('0') && !text.ends_with(".0") {
            text.pop();
        }
    }
    if let Some(instance) = &binding.instance {
        text.push_str(";+sip.instance=\"");
        for c in instance.chars() {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    if let Some(reg_id) = binding.reg_id {
        let _ = write!(text, ";reg-id={reg_id}");
    }
    text
}
