//! How much a node has room for, and how it ends.

use super::*;

#[test]
fn a_thread_that_stays_is_not_waited_for_without_end() {
    let (go, wait) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limit = |milliseconds| Instant::now() + Duration::from_millis(milliseconds);
    assert!(!runtime.block_on(async { ends(&thread, limit(30)).await }));
    drop(go);
    assert!(runtime.block_on(async { ends(&thread, limit(5000)).await }));
}

/// A configuration file that `policies` of the built-in policy make up, as it is read.
fn draft(policies: usize, folder: &std::path::Path) -> crate::configuration::Draft {
    let file = folder.join("sipbox.toml");
    let mut text = "workers = 2\n[[listener]]\nname = \"udp\"\ntransport = \"udp\"\n\
         address = \"127.0.0.1:0\"\n[store]\npath = \"sipbox.sqlite\"\n\
         [control]\nsocket = \"control.sock\"\n\
         [[tenant]]\nname = \"home\"\ndomains = [\"home.test\"]\n\
         grants = [\"auth\", \"location\", \"nat\", \"dialogs\", \"leases\"]\n"
        .to_owned();
    for policy in 0..policies {
        text += &format!(
            "[[tenant.policy]]\nname = \"p{policy}\"\nbuiltin = \"residential\"\n\
             settings = {{ domains = {{ \"home.test\" = {{}} }} }}\n"
        );
    }
    std::fs::write(&file, text).unwrap();
    crate::configuration::Source::File(file).read().unwrap()
}

#[test]
fn a_configuration_may_outgrow_the_instances() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let configuration = draft(1, folder.path()).finish().ok().unwrap();
    let running = runtime
        .block_on(Running::start(configuration.parts(), configuration))
        .unwrap();
    let share = running.node.instances;
    assert_eq!(share, 161, "of the thousand that a node has at least");
    for version in [2, 3] {
        let draft = draft(4 * share, folder.path());
        assert_eq!(runtime.block_on(running.reload(draft)).unwrap(), version);
    }
    runtime.block_on(running.stop()).unwrap();
}

#[test]
fn the_sandbox_grows_with_the_configuration() {
    let sandbox = |policies, workers| {
        let sandbox = Sandbox::for_node(None, policies, workers).unwrap();
        sandbox.share(workers)
    };
    assert_eq!(sandbox(3, 2), 161);
    assert_eq!(sandbox(600, 2), 1200);
    assert_eq!(sandbox(100_000, 2), 2661);
    assert_eq!(sandbox(100_000, 64), 122);
}
