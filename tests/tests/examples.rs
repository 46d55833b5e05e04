//! Every pipeline under `examples/` is one that the engine accepts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use millstream_tests::process::Program;
use millstream_tests::repository;

#[test]
fn every_example_is_valid() {
    let folder = repository().join("examples");
    let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".sql"));
    names.sort();
    assert!(!names.is_empty(), "there are no examples");
    for name in names {
        let program = Program::ours("millstream").args(["validate", "-f"]).arg(folder.join(&name));
        let finished = program.run(Duration::from_secs(60));
        assert_eq!(finished.code(), 0, "{}:\n{}{}", name.display(), finished.stdout, finished.stderr);
    }
}
