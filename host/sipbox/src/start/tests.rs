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
         grants = [\"auth\", \"location\"]\n"
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
fn too_many_policies_are_refused_where_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    let most = most_policies(2);
    assert_eq!(most, 2666);
    let mut fits = draft(most, folder.path());
    fits.check_number();
    assert!(fits.is_right());
    let mut crowd = draft(most + 2, folder.path());
    crowd.check_number();
    let text = anyhow::Error::from(crowd.finish().err().unwrap()).to_string();
    assert!(
        text.contains("too many policies: 2668 in all tenants"),
        "{text}"
    );
    assert!(
        text.contains("expected at most 2666 with 2 workers"),
        "{text}"
    );
    let line = 14 + 4 * most + 2;
    assert!(text.contains(&format!("sipbox.toml:{line}:")), "{text}");
}

#[test]
fn a_reload_that_does_not_fit_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let configuration = draft(1, folder.path()).finish().ok().unwrap();
    let running = runtime
        .block_on(Running::start(configuration.parts(), configuration))
        .unwrap();
    let refused = runtime.block_on(running.reload(draft(333, folder.path())));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("at most 332 beside those in force"), "{text}");
    assert_eq!(running.node.snapshot.load().version, 1);
    let version = runtime.block_on(running.reload(draft(332, folder.path())));
    assert_eq!(version.unwrap(), 2);
    runtime.block_on(running.stop()).unwrap();
}

#[test]
fn policies_without_room_are_refused_before_they_count() {
    let folder = tempfile::tempdir().unwrap();
    let live = draft(2, folder.path()).live().unwrap();
    let sandbox = Sandbox::new(EngineSettings {
        cache: None,
        instances: 3,
    })
    .unwrap();
    let chains = sandbox.chains(&live).unwrap();
    let refused = stock(&chains, 2).unwrap_err();
    assert_eq!((refused[0].tenant, refused[0].policy), (0, 1));
    assert!(
        refused[0].error.to_string().contains("limit"),
        "{refused:?}"
    );
}

#[test]
fn the_sandbox_grows_with_the_configuration() {
    let few = Sandbox::for_node(None, 3, 2).unwrap();
    assert_eq!(few.room(3, 2), 330);
    drop(few);
    let many = Sandbox::for_node(None, 600, 2).unwrap();
    assert_eq!(many.room(600, 2), 1800);
    drop(many);
    let most = Sandbox::for_node(None, most_policies(2), 2).unwrap();
    assert!(most.room(most_policies(2), 2) >= most_policies(2));
}
