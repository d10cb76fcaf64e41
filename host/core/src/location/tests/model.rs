//! The service against a model that keeps plain lists, and the changes that it
//! tells against a table as a database would keep it.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// What the service should do, in the plainest way: one list for each AOR.
#[derive(Default)]
struct Model(Vec<(usize, String, WallTime, u16)>);

#[derive(Clone, Debug)]
enum Act {
    Register {
        user: usize,
        contacts: Vec<(usize, u32, u16)>,
    },
    Clear(usize),
    Pass(u64),
    Expire(usize),
    Remove(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let contact = (0..4usize, prop_oneof![Just(0u32), 60..400u32], 0..=1000u16);
    prop_oneof![
        4 => (0..3usize, prop::collection::vec(contact, 1..4))
            .prop_map(|(user, contacts)| Act::Register { user, contacts }),
        1 => (0..3usize).prop_map(Act::Clear),
        2 => (0..200u64).prop_map(Act::Pass),
        2 => (0..4usize).prop_map(Act::Expire),
        1 => (0..3usize).prop_map(Act::Remove),
    ]
}

fn q_text(q: u16) -> String {
    if q == 1000 {
        "1".into()
    } else {
        format!("0.{q:03}")
    }
}

proptest! {
    #[test]
    fn the_service_agrees_with_the_model(acts in prop::collection::vec(act(), 1..60)) {
        let mut bench = Bench::new();
        let mut model = Model::default();
        // What a database would hold after the changes.
        let mut rows = std::collections::BTreeMap::<u64, Arc<Binding>>::new();
        let mut sequence = 0;
        let mut apply = |changes: &[Change]| {
            for change in changes {
                assert!(change.sequence >= sequence, "changes come in order");
                sequence = change.sequence;
                match &change.kind {
                    ChangeKind::Upsert(binding) => { rows.insert(binding.id, binding.clone()); }
                    ChangeKind::Delete(id) => assert!(rows.remove(id).is_some(), "deleted twice"),
                }
            }
            rows.clone()
        };
        let user = |n: usize| format!("u{n}@example.com");
        let mut stored = std::collections::BTreeMap::new();
        for (cseq, act) in acts.iter().enumerate() {
            match act {
                Act::Register { user: n, contacts } => {
                    let list: Vec<_> = contacts.iter().map(|(host, expires, q)| {
                        format!("<sip:x@h{host}>;expires={expires};q={}", q_text(*q))
                    }).collect();
                    let fields = format!("Call-ID: c\r\nCSeq: {} REGISTER\r\nContact: {}\r\n", cseq + 1, list.join(","));
                    let Ok(Planned::Save(plan)) = bench.plan(&user(*n), &fields) else { panic!("no plan") };
                    let commit = bench.service.commit(&plan, bench.now).unwrap();
                    stored = apply(&commit.changes);
                    for (host, expires, q) in contacts {
                        let uri = format!("sip:x@h{host}");
                        model.0.retain(|(u, c, ..)| !(u == n && *c == uri));
                        if *expires > 0 {
                            model.0.push((*n, uri, WallTime(bench.now.0 + u64::from(*expires) * 1000), *q));
                        }
                    }
                }
                Act::Clear(n) => {
                    let fields = format!("Call-ID: c\r\nCSeq: {} REGISTER\r\nExpires: 0\r\nContact: *\r\n", cseq + 1);
                    let Ok(Planned::Save(plan)) = bench.plan(&user(*n), &fields) else { panic!("no plan") };
                    stored = apply(&bench.service.commit(&plan, bench.now).unwrap().changes);
                    model.0.retain(|(u, ..)| u != n);
                }
                Act::Pass(seconds) => bench.pass(*seconds),
                Act::Expire(max) => stored = apply(&bench.service.expire(bench.now, *max)),
                Act::Remove(n) => {
                    if let Some(commit) = bench.service.remove(T, &Aor::parse(&user(*n)).unwrap(), bench.now) {
                        stored = apply(&commit.changes);
                    }
                    model.0.retain(|(u, ..)| u != n);
                }
            }
            model.0.retain(|(_, _, end, _)| *end > bench.now);
            for n in 0..3 {
                let found = bench.service.lookup(T, &Aor::parse(&user(n)).unwrap(), bench.now);
                prop_assert!(found.is_sorted_by_key(|b| std::cmp::Reverse(b.q)));
                let mut found: Vec<_> = found.iter().map(|b| (n, b.contact.to_string(), b.expires, b.q)).collect();
                let mut expected: Vec<_> = model.0.iter().filter(|(u, ..)| *u == n).cloned().collect();
                found.sort();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
        }
        let mut held = Vec::new();
        bench.service.dump(None, |_, _, bindings| held.extend(bindings.iter().cloned()));
        held.sort_by_key(|b| b.id);
        prop_assert_eq!(bench.service.counts(None).bindings, held.len());
        prop_assert_eq!(bench.service.awaited(), held.len());
        prop_assert_eq!(held, stored.into_values().collect::<Vec<_>>(), "the database is the same");
        bench.pass(10_000);
        bench.service.expire(bench.now, usize::MAX);
        prop_assert_eq!(bench.service.counts(None), Counts::default());
        prop_assert_eq!(bench.service.awaited(), 0);
    }
}
