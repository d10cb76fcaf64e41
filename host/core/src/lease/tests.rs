//! Leases: limits, who holds what, and what an audit finds.

use super::*;

const HOME: TenantId = TenantId(0);

fn table() -> LeaseTable {
    LeaseTable::new(4, &[7; 16])
}

fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        Acquired::Full(held) => panic!("full with {held}"),
    }
}

#[test]
fn a_limit_holds_and_what_is_dropped_is_free() {
    let table = table();
    let first = granted(table.acquire(HOME, "user", "alice", 2));
    let second = granted(table.acquire(HOME, "user", "alice", 2));
    assert_eq!(table.acquire(HOME, "user", "alice", 2), Acquired::Full(2));
    assert_ne!(first, second);
    // Others are not concerned: another key, scope or tenant.
    let _bob = granted(table.acquire(HOME, "user", "bob", 1));
    let _trunk = granted(table.acquire(HOME, "trunk", "alice", 1));
    let _other = granted(table.acquire(TenantId(1), "user", "alice", 1));
    let copy = second.clone();
    drop(second);
    assert_eq!(table.held(HOME, "user", "alice"), 2, "a copy holds it");
    drop(copy);
    assert_eq!(table.held(HOME, "user", "alice"), 1);
    // What is ended counts no more, whoever has it, and is not given back twice.
    first.end();
    first.end();
    assert_eq!(table.held(HOME, "user", "alice"), 0);
    first.revive();
    first.revive();
    assert_eq!(table.held(HOME, "user", "alice"), 1);
    drop(first);
    assert_eq!(table.held(HOME, "user", "alice"), 0);
    assert_eq!(table.acquire(HOME, "user", "alice", 0), Acquired::Full(0));
}

/// Keys are found by their hash, and told apart by themselves.
#[test]
fn keys_of_one_hash_are_counted_apart() {
    let counter = |key: &str| {
        let key = LeaseKey {
            tenant: HOME,
            scope: "user".into(),
            key: key.into(),
        };
        Arc::new(Counter {
            key,
            held: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            whole: None,
        })
    };
    let mut shard = Shard {
        counters: Counters::default(),
        prune_at: FEW,
    };
    let of_hash = shard.counters.entry(7).or_default();
    of_hash.extend([counter("alice"), counter("bob"), counter("carol")]);
    let found = |hash, key| shard.find(hash, (HOME, "user", key)).map(|c| &*c.key.key);
    for key in ["alice", "bob", "carol"] {
        assert_eq!(found(7, key), Some(key));
        assert_eq!(found(8, key), None);
    }
    assert_eq!(found(7, "dave"), None);
    assert!(shard.find(7, (TenantId(1), "user", "alice")).is_none());
    assert!(shard.find(7, (HOME, "trunk", "alice")).is_none());
    assert_eq!(shard.counters().count(), 3);
}

#[test]
fn no_two_workers_take_the_last_place() {
    let table = Arc::new(table());
    for _ in 0..50 {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let table = Arc::clone(&table);
                std::thread::spawn(move || {
                    let mut held = Vec::new();
                    for _ in 0..20 {
                        if let Acquired::Granted(lease) =
                            table.acquire(HOME, "trunk", "carrier", 30)
                        {
                            held.push(lease);
                        }
                    }
                    held
                })
            })
            .collect();
        let held: Vec<_> = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect();
        assert_eq!(held.len(), 30);
        drop(held);
        assert_eq!(table.held(HOME, "trunk", "carrier"), 0);
    }
}

#[test]
fn an_audit_finds_what_nobody_holds() {
    let table = table();
    let (kept, reserved) = (
        table.take(HOME, "user", "alice"),
        table.take(HOME, "user", "alice"),
    );
    kept.commit();
    let audit = table.audit(|| vec![kept.clone(), kept.clone()]);
    assert_eq!((audit.held, audit.reserved, audit.drift()), (2, 1, 0));
    reserved.commit();
    let audit = table.audit(|| vec![kept.clone()]);
    assert_eq!(audit.drift(), 1);
    let key = &audit.drift.first().unwrap().0;
    assert_eq!((&*key.scope, &*key.key), ("user", "alice"));
    drop(reserved);
    assert_eq!(table.audit(|| vec![kept.clone()]).drift(), 0);
}

#[test]
fn members_count_in_the_whole_and_counters_go_with_them() {
    let table = table();
    let one = table.take_among(HOME, "out", "carrier-a");
    let two = table.take_among(HOME, "out", "carrier-b");
    assert_eq!(table.held(HOME, "out", ""), 2);
    assert_eq!(table.held(HOME, "out", "carrier-a"), 1);
    drop(one);
    assert_eq!(table.held(HOME, "out", ""), 1);
    assert_eq!(table.list(None).len(), 2);
    drop(two);
    assert!(table.list(None).is_empty());
    for n in 0..10_000 {
        drop(table.take(HOME, "user", &n.to_string()));
    }
    let counters: usize = table
        .shards
        .iter()
        .map(|shard| lock(shard).counters.len())
        .sum();
    assert!(counters <= 4 * FEW, "{counters}");
}
