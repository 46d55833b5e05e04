//! Waiting for a condition, and running async code from anywhere.

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value; panics with `what` after `timeout`.
pub fn wait_for<T>(what: &str, timeout: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match poll(timeout, condition) {
        Some(value) => value,
        None => panic!("waited {timeout:?} in vain for {what}"),
    }
}

/// Waits until `condition` gives a value, or nothing after `timeout`.
///
/// The condition is asked once more when the time is over, so that a slow machine is not taken for a failure.
pub fn poll<T>(timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + timeout;
    loop {
        let last = Instant::now() >= until;
        match condition() {
            Some(value) => return Some(value),
            None if last => return None,
            None => std::thread::sleep(POLL),
        }
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("cannot start a tokio runtime")
});

/// Runs a future to its end on the harness's own runtime, from a plain thread or from inside another runtime.
pub fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    std::thread::scope(|scope| match scope.spawn(|| RUNTIME.block_on(future)).join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
