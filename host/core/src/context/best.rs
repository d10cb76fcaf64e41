//! The best response of a context (RFC 3261 16.7 steps 4, 6 and 7): which final
//! response goes upstream when no branch succeeded, and with which challenges.

use bytes::Bytes;
use sipbox_sip::{EditList, HeaderId, Index, Message};
use smallvec::SmallVec;

use crate::flow::Flow;
use crate::transaction::{Wording, keep};

/// A final response other than 2xx. Without one received it stands for a branch that
/// ended without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) status: u16,
    /// The response itself, if one came.
    pub(crate) received: Option<Received>,
}

/// A response of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// As it goes upstream: our Via is removed.
    pub(crate) wording: Wording,
    /// How it came.
    pub(crate) flow: Flow,
}

/// What has come so far.
#[derive(Debug, Default)]
pub(crate) struct Best {
    best: Option<Candidate>,
    /// 401 and 407 that are not the best, for step 7.
    challenges: SmallVec<[Bytes; 1]>,
}

impl Best {
    pub(crate) fn get(&self) -> Option<&Candidate> {
        self.best.as_ref()
    }

    /// The bytes of the responses that it keeps.
    pub(crate) fn holds(&self) -> usize {
        let received = self.best.iter().filter_map(|best| best.received.as_ref());
        let best: usize = received
            .map(|received| received.wording.bytes().len())
            .sum();
        best + self.challenges.iter().map(Bytes::len).sum::<usize>()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Step 4 and 6: keeps the better one.
    pub(crate) fn offer(&mut self, new: Candidate) {
        let better = self.best.as_ref().is_none_or(|old| rank(&new) < rank(old));
        let loser = if better {
            self.best.replace(new)
        } else {
            Some(new)
        };
        if let Some(loser) = loser
            && is_challenge(loser.status)
            && let Some(received) = loser.received
        {
            self.challenges.push(received.wording.bytes().clone());
        }
    }

    /// Step 7: the best response with the challenges of the others added, so that
    /// the caller can answer all of them at once.
    pub(crate) fn merged(&self, edits: &mut EditList, out: &mut Vec<u8>) -> Option<Candidate> {
        let best = self.best.as_ref()?;
        let Some(received) = best
            .received
            .as_ref()
            .filter(|_| is_challenge(best.status) && !self.challenges.is_empty())
        else {
            return Some(best.clone());
        };
        let mut index = Index::new();
        let Ok(message) = Message::parse(received.wording.bytes(), &mut index) else {
            return Some(best.clone());
        };
        edits.clear();
        for other in &self.challenges {
            let mut index = Index::new();
            let Ok(other) = Message::parse(other, &mut index) else {
                continue;
            };
            for id in [HeaderId::WwwAuthenticate, HeaderId::ProxyAuthenticate] {
                for field in other.all(id) {
                    // A value with folds cannot be copied as one line.
                    let value = sipbox_sip::lex::unfold(other.get(field.value));
                    let _ = edits.append_header(message, id, &value);
                }
            }
        }
        out.clear();
        match edits.write(message, out) {
            Ok(()) => Some(Candidate {
                status: best.status,
                received: Some(Received {
                    wording: keep(out).into(),
                    flow: received.flow,
                }),
            }),
            Err(_) => Some(best.clone()),
        }
    }
}

const fn is_challenge(status: u16) -> bool {
    matches!(status, 401 | 407)
}

/// Step 6: 6xx before all, then the lowest class; within 4xx those that tell the
/// caller how to do better. Other ties go to the first that came; a response that
/// came stands before one that we would have to make up.
fn rank(candidate: &Candidate) -> (u16, u16, bool) {
    let class = match candidate.status / 100 {
        6 => 0,
        class => class,
    };
    let within = match candidate.status {
        401 | 407 => 0,
        415 | 420 | 484 => 1,
        // 16.7 step 6: a 503 says nothing about the request; better tell another.
        503 => 3,
        // 408 of a branch that nobody answered tells less than what a phone said.
        408 | 487 => 3,
        _ => 2,
    };
    (class, within, candidate.received.is_none())
}

/// Step 6: a 503 would keep the caller from trying us at all, so it goes up as 500.
pub(crate) const fn upstream_status(status: u16) -> u16 {
    if status == 503 { 500 } else { status }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, extra: &str) -> Candidate {
        let text = format!("SIP/2.0 {status} X\r\nCall-ID: c\r\n{extra}Content-Length: 0\r\n\r\n");
        Candidate {
            status,
            received: Some(Received {
                wording: Bytes::from(text).into(),
                flow: crate::testing::udp("192.0.2.2:5060"),
            }),
        }
    }

    fn best_of(statuses: &[u16]) -> u16 {
        let mut best = Best::default();
        for &status in statuses {
            best.offer(response(status, ""));
        }
        best.get().unwrap().status
    }

    #[test]
    fn the_order_of_16_7_holds() {
        assert_eq!(best_of(&[486, 603, 404]), 603);
        assert_eq!(best_of(&[500, 404, 302]), 302);
        assert_eq!(best_of(&[486, 407]), 407);
        assert_eq!(best_of(&[486, 484]), 484);
        assert_eq!(best_of(&[404, 486]), 404, "the first of equals");
        assert_eq!(best_of(&[503, 500]), 500);
        assert_eq!(best_of(&[408, 480]), 480);
        assert_eq!(best_of(&[487, 486]), 486);
    }

    #[test]
    fn challenges_of_all_branches_go_up_together() {
        let mut best = Best::default();
        best.offer(response(407, "Proxy-Authenticate: Digest realm=\"a\"\r\n"));
        best.offer(response(401, "WWW-Authenticate: Digest realm=\"b\"\r\n"));
        best.offer(response(486, ""));
        best.offer(response(407, "Proxy-Authenticate: Digest realm=\"c\"\r\n"));
        let merged = best.merged(&mut EditList::new(), &mut Vec::new()).unwrap();
        let text = String::from_utf8(merged.received.unwrap().wording.bytes().to_vec()).unwrap();
        assert_eq!(merged.status, 407);
        for realm in ["a", "b", "c"] {
            assert!(text.contains(&format!("realm=\"{realm}\"")), "{text}");
        }
        assert!(text.contains("\r\nWWW-Authenticate: "), "{text}");
    }

    #[test]
    fn a_lone_503_goes_up_as_500() {
        assert_eq!(upstream_status(503), 500);
        assert_eq!(upstream_status(486), 486);
    }
}
