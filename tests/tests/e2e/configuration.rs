//! Driver and executor as an operator configures them: by a file, by variables, by flags.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use millstream_tests::files::Files;
use millstream_tests::process::{Program, free_ports};
use millstream_tests::temp_dir;

const TIMEOUT: Duration = Duration::from_secs(60);
const ROWS: usize = 1_000;

/// A pipeline in `folder` with an end, the file for both programs, and where it writes to.
fn configure(folder: &Path) -> String {
    let shown = folder.display();
    let sql = format!(
        "CREATE TABLE rows (id BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '{ROWS}', 'fields.id.kind' = 'sequence');
         CREATE TABLE out (id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{shown}/out', 'format' = 'json');
         INSERT INTO out SELECT id FROM rows;"
    );
    std::fs::write(folder.join("pipeline.sql"), sql).unwrap();
    let port = free_ports(2);
    let file = folder.join("millstream.toml");
    let text = format!(
        "checkpointLocation = '{shown}/checkpoints'\n[checkpoint]\ninterval = '1 s'\n\
         [driver]\nfile = '{shown}/pipeline.sql'\nlisten = '127.0.0.1:{port}'\nhttp = '127.0.0.1:{}'\nstate-dir = '{shown}/driver'\n\
         [executor]\ndriver = '127.0.0.1:1'\nslots = 2\nstate-dir = '{shown}/executor'\n",
        port + 1
    );
    std::fs::write(&file, text).unwrap();
    format!("127.0.0.1:{port}")
}

fn rows(folder: &Path) -> usize {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
    Files::local(&folder.join("out")).json("", &schema).iter().map(RecordBatch::num_rows).sum()
}

#[test]
fn a_file_configures_both_and_flags_win_over_it() {
    let folder = temp_dir();
    let listen = configure(folder.path());
    let file = folder.path().join("millstream.toml");
    let mut driver = Program::ours("millstream-driver").arg("--config").arg(&file).start();
    // The file names a driver that is not there.
    let executor =
        Program::ours("millstream-executor").env("MILLSTREAM__CONFIG", &file).args(["--driver", &listen, "--id", "e0"]);
    let _executor = executor.start();
    assert!(driver.wait(TIMEOUT).success(), "{}", driver.stderr());
    assert_eq!(rows(folder.path()), ROWS);
    assert!(folder.path().join("checkpoints").is_dir(), "the setting of the file counts");
    assert!(folder.path().join("executor").is_dir(), "the executor reads its section");
}

#[test]
fn mistakes_in_the_file_are_named_and_end_with_78() {
    let folder = temp_dir();
    configure(folder.path());
    let file = folder.path().join("millstream.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (program, text, said) in [
        ("millstream-driver", "[driver]\nlissten = 'x'", "[driver] has no option 'lissten'; did you mean 'listen'?"),
        ("millstream-executor", "[executor]\nslot = 1", "[executor] has no option 'slot'; did you mean 'slots'?"),
        (
            "millstream-driver",
            &format!("{good}[checkpont]\ninterval = '1 s'"),
            "did you mean MILLSTREAM__CHECKPOINT__INTERVAL?",
        ),
        ("millstream-executor", "[executor]\nslots = [1]", "'executor.slots' is a list"),
        ("millstream-driver", "[driver", "is not TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        let finished = Program::ours(program).arg("--config").arg(&file).run(TIMEOUT);
        assert_eq!(finished.code(), 78, "{}", finished.stderr);
        assert!(finished.stderr.contains(said), "{said}: {}", finished.stderr);
    }
}
