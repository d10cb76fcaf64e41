//! `policies/load-balancer` on the running proxy, over servers that do as they are told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use sipbox_tests::agent::Dialog;
use sipbox_tests::process::wait_until;
use sipbox_tests::random_ends::{Obedient, RandomEnds};
use sipbox_tests::server::{ANSWERS, RINGING, SILENT};
use sipbox_tests::sipbox::DOMAIN;
use sipbox_tests::sipp::Counts;
use sipbox_tests::{Agent, Loopback, Message, Server, Setup, Sipbox, Sipp, guest};

const IMPATIENT: &str = "t1 = \"100ms\"\nb = \"1s\"\n";

/// The balancer with its settings as TOML. A server that says nothing has a second.
fn balancer(address: SocketAddr, settings: &str) -> Sipbox {
    balancer_with(address, settings, IMPATIENT)
}

fn balancer_with(address: SocketAddr, settings: &str, timers: &str) -> Sipbox {
    let toml = format!(
        "[[tenant]]\nname = \"front\"\ndomains = [\"{DOMAIN}\"]\ngrants = [\"dialogs\", \"leases\", \"counters\"]\n\
         [[tenant.policy]]\ncomponent = \"{}\"\n[tenant.policy.settings]\n{settings}\n\
         [tenant.limits]\ncpu = \"100ms\"\n",
        guest::load_balancer().display(),
    );
    let setup = Setup::at(address).tenants(&toml).default_tenant("front");
    let setup = setup.workers(2);
    setup.with(&format!("[timers]\n{timers}")).start()
}

struct Cluster {
    net: Loopback,
    sipbox: Sipbox,
    alice: Agent,
    servers: Vec<Server>,
}

/// Three servers, each with this to its URI.
fn cluster(more: [&str; 3], settings: &str) -> Cluster {
    cluster_with(more, settings, IMPATIENT)
}

fn cluster_with(more: [&str; 3], settings: &str, timers: &str) -> Cluster {
    let net = Loopback::new();
    let proxy = net.sip();
    let servers: Vec<Server> = (1..=3)
        .map(|number| Server::start(&format!("s{number}"), net.sip(), proxy))
        .collect();
    let targets: Vec<String> = servers
        .iter()
        .zip(more)
        .map(|(server, more)| format!("{{ uri = \"sip:{}\"{more} }}", server.address))
        .collect();
    let settings = format!("targets = [{}]\n{settings}", targets.join(", "));
    let sipbox = balancer_with(proxy, &settings, timers);
    let alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    Cluster {
        net,
        sipbox,
        alice,
        servers,
    }
}

const BOB: &str = "sip:bob@lab.test";

impl Cluster {
    fn call(&mut self) -> Dialog {
        self.alice.call(BOB)
    }

    fn hang_up(&mut self, dialog: Dialog) {
        self.alice.hang_up(dialog);
    }

    fn refused(&mut self, status: u16) -> Message {
        let (_, answer) = self.alice.invite(BOB);
        assert_eq!(answer.status(), Some(status), "{answer}");
        answer
    }

    /// How many calls each server got since the last time.
    fn shares(&self) -> Vec<usize> {
        self.servers.iter().map(|s| s.calls().len()).collect()
    }

    fn assert_nothing_left(&self) {
        self.sipbox.assert_no_call_left();
    }
}

/// Several callers at a time, over two workers.
#[test]
fn calls_are_spread_exactly_as_the_weights_say() {
    let more = [", weight = 3", ", weight = 2", ""];
    // Nobody is passed over, however slow the machine is.
    let cluster = cluster_with(more, "fr_timeout = 20", "");
    let proxy = cluster.sipbox.address;
    let callers: Vec<Agent> = (0..4)
        .map(|n| Agent::udp(&format!("a{n}"), DOMAIN, cluster.net.sip(), proxy))
        .collect();
    std::thread::scope(|scope| {
        for mut caller in callers {
            scope.spawn(move || {
                for _ in 0..60 {
                    let dialog = caller.call(BOB);
                    caller.hang_up(dialog);
                }
            });
        }
    });
    let calls: Vec<Vec<Message>> = cluster.servers.iter().map(Server::calls).collect();
    let shares: Vec<usize> = calls.iter().map(Vec::len).collect();
    assert_eq!(shares, [120, 80, 40]);
    let first = &calls[0][0];
    assert_eq!(first.request_uri(), "sip:bob@lab.test");
    assert!(first.header("Record-Route").is_some());
    assert_eq!(cluster.sipbox.statistic("leases:held"), 0);
}

#[test]
fn the_least_loaded_target_gets_the_next_call() {
    let more = [", max_calls = 4", ", max_calls = 2", ", max_calls = 2"];
    let mut cluster = cluster(more, "algorithm = \"least-calls\"");
    let mut calls: Vec<Dialog> = (0..4).map(|_| cluster.call()).collect();
    assert_eq!(cluster.shares(), [2, 1, 1], "each is half full");
    calls.extend((0..4).map(|_| cluster.call()));
    assert_eq!(cluster.shares(), [2, 1, 1]);
    assert_eq!(cluster.sipbox.statistic("leases:held"), 8);
    assert_eq!(cluster.refused(503).reason(), "All Targets Full");
    assert_eq!(cluster.shares(), [0, 0, 0]);
    // One place is free again where a call has ended, and nowhere else.
    let ended = calls.remove(0);
    cluster.hang_up(ended);
    wait_until("a free place", Duration::from_secs(5), || {
        cluster.sipbox.statistic("leases:held") == 7
    });
    calls.push(cluster.call());
    cluster.refused(503);
    for dialog in calls {
        cluster.hang_up(dialog);
    }
    cluster.assert_nothing_left();
}

#[test]
fn a_target_that_is_out_of_order_is_passed_over() {
    let most = ", max_calls = 100";
    let mut cluster = cluster([most; 3], "");
    for status in [SILENT, 500, 503] {
        cluster.servers[0].answers(status);
        cluster.servers[1].answers(status);
        let mut passed_over = [0; 2];
        // The turns come to each.
        for _ in 0..3 {
            let dialog = cluster.call();
            assert_eq!(
                cluster.sipbox.statistic("leases:held"),
                1,
                "only the last one's"
            );
            cluster.hang_up(dialog);
            cluster.assert_nothing_left();
            let shares = cluster.shares();
            assert_eq!(shares[2], 1, "{status}: {shares:?}");
            passed_over[0] += shares[0];
            passed_over[1] += shares[1];
        }
        let all = passed_over.iter().all(|calls| *calls > 0);
        assert!(all, "{status}: {passed_over:?}");
    }
    cluster.servers[2].answers(502);
    assert_eq!(cluster.refused(503).reason(), "No Target Left");
    assert_eq!(cluster.shares(), [1, 1, 1]);
    cluster.assert_nothing_left();
}

#[test]
fn what_the_callee_says_is_not_tried_elsewhere() {
    let mut cluster = cluster([", max_calls = 100"; 3], "");
    for status in [404, 486, 480, 603] {
        for server in &cluster.servers {
            server.answers(status);
        }
        cluster.refused(status);
        assert_eq!(cluster.shares().iter().sum::<usize>(), 1, "{status}");
        cluster.assert_nothing_left();
    }
}

#[test]
fn a_target_that_refuses_connections_is_passed_over() {
    let net = Loopback::new();
    let proxy = net.sip();
    let server = Server::start("s", net.sip(), proxy);
    let settings = format!(
        "targets = [{{ uri = \"sip:{}\", max_calls = 9 }}, \
         {{ uri = \"sip:{};transport=tcp\", max_calls = 9, priority = 1 }}]",
        server.address,
        net.sip()
    );
    let sipbox = balancer(proxy, &settings);
    let alice = Agent::udp("alice", DOMAIN, net.sip(), sipbox.address);
    let mut cluster = Cluster {
        net,
        sipbox,
        alice,
        servers: vec![server],
    };
    for _ in 0..3 {
        let begun = Instant::now();
        let dialog = cluster.call();
        assert!(begun.elapsed() < Duration::from_secs(1), "no time-out");
        cluster.hang_up(dialog);
    }
    assert_eq!(cluster.shares(), [3]);
    cluster.assert_nothing_left();
}

#[test]
fn who_cancels_is_not_sent_on() {
    let mut cluster = cluster([", max_calls = 100"; 3], "");
    for server in &cluster.servers {
        server.answers(RINGING);
    }
    let invite = cluster.alice.request("INVITE", "sip:bob@lab.test");
    cluster.alice.send(&invite);
    cluster.alice.expect(&invite, 180);
    let cancel = cluster.alice.cancel(&invite);
    cluster.alice.send(&cancel);
    let answer = cluster.alice.expect(&invite, 487);
    cluster.alice.acknowledge(&invite, &answer);
    assert_eq!(cluster.shares().iter().sum::<usize>(), 1);
    cluster.assert_nothing_left();
    for server in &cluster.servers {
        server.answers(ANSWERS);
    }
}

#[test]
fn a_target_may_ring_for_so_long() {
    let mut cluster = cluster([", priority = 1", "", ", weight = 0"], "ring_timeout = 1");
    cluster.servers[0].answers(RINGING);
    let dialog = cluster.call();
    cluster.hang_up(dialog);
    assert_eq!(cluster.shares(), [1, 1, 0]);
}

#[test]
fn an_end_by_command_frees_the_place() {
    let mut cluster = cluster(
        [", max_calls = 1", ", weight = 0", ", weight = 0"],
        "tries = 1",
    );
    let _dialog = cluster.call();
    let list = cluster.sipbox.rpc("dlg_list", &json!({}));
    let lease = &list["Dialogs"][0]["leases"][0];
    let name = format!("sip:{}", cluster.servers[0].address);
    assert_eq!(lease["value"], json!(name), "{list}");
    let id = list["Dialogs"][0]["ID"].clone();
    let end = json!({ "dialog_id": id });
    assert_eq!(cluster.sipbox.rpc("dlg_end_dlg", &end), json!("OK"));
    let bye = cluster.alice.expect_request("BYE");
    cluster.alice.respond(&bye, 200, "OK");
    cluster.assert_nothing_left();
}

/// Three SIPp servers behind the balancer, and the one in the middle as `peer` says; none is
/// a server that is gone. Callers notice nothing but the time that it takes.
fn through_sipp(peer: Option<&str>, calls: u32, fr_timeout: u32) -> Counts {
    let net = Loopback::new();
    let (proxy, servers) = (net.sip(), [net.sip(), net.sip(), net.sip()]);
    let targets = servers.map(|server| format!("{{ uri = \"sip:{server}\", max_calls = 500 }}"));
    let settings = format!(
        "targets = [{}]\nfr_timeout = {fr_timeout}",
        targets.join(", ")
    );
    // Timer B is no help here.
    let sipbox = balancer_with(proxy, &settings, "");
    let good = peer == Some("uas_call");
    let (middle, others) = (calls / 3, if good { calls / 3 } else { calls / 2 });
    let counts = [Some("uas_call"), peer, Some("uas_call")];
    let running: Vec<_> = servers
        .into_iter()
        .zip(counts)
        .zip([others, middle, others])
        .filter_map(|((server, scenario), calls)| {
            let uas = Sipp::new(scenario?, server).calls(calls, 50);
            Some(uas.within(Duration::from_secs(60)).start())
        })
        .collect();
    let caller = Sipp::new("uac_call", net.sip()).to(proxy).calls(calls, 50);
    let counts = caller
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .within(Duration::from_secs(60))
        .timed()
        .run();
    // Each server had exactly its share, and of what the one could not take.
    for uas in running {
        uas.finish();
    }
    sipbox.assert_no_call_left();
    counts
}

#[test]
fn sipp_servers_have_equal_shares() {
    through_sipp(Some("uas_call"), 300, 20);
}

#[test]
fn a_sipp_server_that_says_503_costs_no_call() {
    through_sipp(Some("uas_unavailable"), 150, 20);
}

#[test]
fn a_server_that_is_gone_costs_no_call() {
    through_sipp(None, 150, 20);
}

#[test]
fn a_sipp_server_that_is_silent_costs_no_call() {
    let counts = through_sipp(Some("uas_silent"), 60, 1);
    // SIPp writes them down by the hundred, answers to BYE among them.
    let slow = counts.response_times.iter().filter(|ms| **ms > 900.0);
    assert!(slow.count() > 5, "{:?}", counts.response_times);
}

#[test]
fn a_busy_callee_behind_sipp_servers_is_busy() {
    let net = Loopback::new();
    let (proxy, servers) = (net.sip(), [net.sip(), net.sip(), net.sip()]);
    let targets = servers.map(|server| format!("{{ uri = \"sip:{server}\" }}"));
    let settings = format!("targets = [{}]\nfr_timeout = 20", targets.join(", "));
    let sipbox = balancer_with(proxy, &settings, "");
    // One more that went on would be one too many for somebody.
    let running = servers.map(|server| Sipp::new("uas_busy", server).calls(20, 20).start());
    let caller = Sipp::new("uac_busy", net.sip()).to(proxy).calls(60, 20);
    caller
        .key("domain", DOMAIN)
        .key("target", "bob@lab.test")
        .run();
    for uas in running {
        assert_eq!(uas.finish().created, 20);
    }
    sipbox.assert_no_call_left();
}

#[test]
fn calls_that_end_in_every_way_leave_no_place_taken() {
    let net = Loopback::new();
    let proxy = net.sip();
    let targets: Vec<SocketAddr> = (0..3).map(|_| net.sip()).collect();
    let servers: Vec<Obedient> = targets
        .iter()
        .map(|address| Obedient::start("bob", DOMAIN, *address, proxy))
        .collect();
    let uris: Vec<String> = targets
        .iter()
        .map(|address| format!("{{ uri = \"sip:{address}\" }}"))
        .collect();
    let settings = format!(
        "algorithm = \"least-calls\"\ntimeout = 5\ntargets = [{}]",
        uris.join(", ")
    );
    let sipbox = balancer(proxy, &settings);
    let ends = RandomEnds {
        caller: net.sip(),
        proxy: sipbox.address,
        domain: DOMAIN.to_owned(),
        callee: "bob".to_owned(),
        rate: 200,
        calls: 1500,
        patience: Duration::from_secs(45),
    }
    .run();
    println!("{ends:?}");
    assert_eq!(ends.ended.len(), 8, "{ends:?}");
    wait_until("every dialog's end", Duration::from_secs(60), || {
        sipbox.rpc("dlg_list", &json!({}))["Dialogs"] == json!([])
    });
    sipbox.assert_no_call_left();
    drop(servers);
}
