//! Every pipeline under `examples/` is one that the engine accepts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use millstream_tests::process::Program;
use millstream_tests::repository;

#[test]
fn every_example_is_valid() {
    let folder = repository().join("examples");
    let inside = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = inside(&folder).chain(inside(&folder.join("nexmark"))).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "sql"));
    files.sort();
    assert!(files.len() > 1, "there are no examples");
    for file in files {
        let program = Program::ours("millstream").args(["validate", "-f"]).arg(&file);
        let finished = program.run(Duration::from_secs(60));
        assert_eq!(finished.code(), 0, "{}:\n{}{}", file.display(), finished.stdout, finished.stderr);
    }
}
