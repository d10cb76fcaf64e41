//! Commits whose fate is known late, and in any order: memory comes to what is stored.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    Register(Vec<(usize, u32)>),
    Clear,
    Add(usize),
    Remove(usize),
    Pass(u64),
    Expire,
    /// One of the commits that wait, and whether it is stored.
    Settle(usize, bool),
}

fn act() -> impl Strategy<Value = Act> {
    let contact = (0..4usize, prop_oneof![Just(0u32), 60..400u32]);
    prop_oneof![
        4 => prop::collection::vec(contact, 1..4).prop_map(Act::Register),
        2 => Just(Act::Clear),
        1 => (0..4usize).prop_map(Act::Add),
        1 => (0..4usize).prop_map(Act::Remove),
        1 => (0..200u64).prop_map(Act::Pass),
        1 => Just(Act::Expire),
        5 => (0..8usize, any::<bool>()).prop_map(|(at, stored)| Act::Settle(at, stored)),
    ]
}

/// A table that takes changes in any order; of one binding the latest counts.
#[derive(Default)]
struct Table(BTreeMap<u64, (u64, Option<Arc<Binding>>)>);

impl Table {
    fn write(&mut self, changes: &[Change]) {
        for change in changes {
            let row = self.0.entry(change.contact_id()).or_default();
            if row.0 <= change.sequence {
                let binding = match &change.kind {
                    ChangeKind::Upsert(binding) => Some(binding.clone()),
                    ChangeKind::Delete(_) => None,
                };
                *row = (change.sequence, binding);
            }
        }
    }

    fn rows(&self) -> Vec<Arc<Binding>> {
        let rows = self.0.values();
        rows.filter_map(|(_, binding)| binding.clone()).collect()
    }
}

fn held(bench: &Bench) -> Vec<Arc<Binding>> {
    let mut held = Vec::new();
    bench
        .service
        .dump(None, |_, _, bindings| held.extend(bindings.iter().cloned()));
    held.sort_by_key(|binding| binding.id);
    held
}

proptest! {
    #[test]
    fn memory_comes_to_what_is_stored(acts in prop::collection::vec(act(), 1..60)) {
        let mut bench = Bench::new();
        let mut table = Table::default();
        let mut waiting: Vec<Commit> = Vec::new();
        let settle = |bench: &Bench, table: &mut Table, commit: &Commit, stored| {
            if stored {
                table.write(&commit.changes);
            }
            bench.service.settle(commit, stored);
        };
        for (cseq, act) in (1..).zip(acts) {
            let register = |bench: &Bench, contacts: &str| {
                let fields = format!("Call-ID: c\r\nCSeq: {cseq} REGISTER\r\n{contacts}\r\n");
                let Ok(Planned::Save(plan)) = bench.plan("alice@example.com", &fields) else {
                    panic!("no plan")
                };
                bench.service.commit(&plan, bench.now).unwrap()
            };
            match act {
                Act::Register(contacts) => {
                    let contacts: Vec<_> = contacts
                        .iter()
                        .map(|(host, expires)| format!("<sip:a@h{host}>;expires={expires}"))
                        .collect();
                    let contacts = format!("Contact: {}", contacts.join(","));
                    waiting.push(register(&bench, &contacts));
                }
                Act::Clear => waiting.push(register(&bench, "Expires: 0\r\nContact: *")),
                Act::Add(host) => {
                    let contact = NewContact {
                        uri: format!("sip:a@h{host}"),
                        q: 1000,
                        expires: Some(100),
                        path: vec![],
                        methods: None,
                    };
                    waiting.push(bench.service.add(T, &alice(), contact, bench.now).unwrap());
                }
                Act::Remove(host) => {
                    let contact = format!("sip:a@h{host}");
                    let removed = bench.service.remove_contact(T, &alice(), &contact, bench.now);
                    waiting.extend(removed);
                }
                Act::Pass(seconds) => bench.pass(seconds),
                Act::Expire => table.write(&bench.service.expire(bench.now, 100)),
                Act::Settle(at, stored) => {
                    if at < waiting.len() {
                        settle(&bench, &mut table, &waiting.remove(at), stored);
                    }
                }
            }
            if waiting.is_empty() {
                prop_assert_eq!(held(&bench), table.rows());
            }
        }
        for (n, commit) in waiting.iter().enumerate() {
            settle(&bench, &mut table, commit, n % 2 == 0);
        }
        let held = held(&bench);
        prop_assert_eq!(&held, &table.rows());
        prop_assert_eq!(bench.service.awaited(), held.len());
        prop_assert_eq!(bench.service.counts(None).bindings, held.len());
        prop_assert_eq!(bench.service.unsettled(), 0);
    }
}

/// Two REGISTERs fail together, in either order: what stood before them stands again.
#[test]
fn two_that_fail_together_leave_what_was_stored() {
    for reversed in [false, true] {
        let bench = Bench::new();
        bench.register("c", 1, "Contact: <sip:a@old>").unwrap();
        let stored = bench.alice();
        let save = |cseq: u32, contact: &str| {
            let fields = format!("Call-ID: c\r\nCSeq: {cseq} REGISTER\r\n{contact}\r\n");
            let Ok(Planned::Save(plan)) = bench.plan("alice@example.com", &fields) else {
                panic!("not a plan");
            };
            bench.service.commit(&plan, bench.now).unwrap()
        };
        let mut failed = [
            save(2, "Expires: 0\r\nContact: *"),
            save(3, "Contact: <sip:a@new>"),
        ];
        if reversed {
            failed.reverse();
        }
        for commit in &failed {
            bench.service.settle(commit, false);
        }
        assert_eq!(bench.alice(), stored);
    }
}
