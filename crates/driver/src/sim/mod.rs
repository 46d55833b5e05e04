//! A seeded simulation of the whole control plane: drivers that crash, freeze and meet each other, executors that crash and lose their
//! links, a log whose writes are delayed, reordered and answered late or never, sinks with markers.
//!
//! After every step the invariants of the architecture are checked against an independent reading of the log ([`truth`]): what is published
//! is a function of the durable chain, each record once and in order; a published epoch never changes; a manifest names only what is
//! complete; a restored state is the state of that epoch. Every run must also come to its end.
//!
//! One seed alone: `MILLSTREAM_SIM_SEED=<seed> cargo test --release -p millstream-driver --lib sim::one_seed -- --nocapture`
//!
//! Rules that another rule covers as well cannot be seen to fail here and have tests of their own: that a record of a lower generation is void
//! (`chain::tip`; it cannot name the claim's hash either), and the look after a late success (`chain::writer`; sinks are fenced as well).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod drivers;
mod executors;
mod faults;
mod random;
mod store;
mod truth;
mod world;

use crate::bugs::{Bug, plant};
use world::{Stats, World};

const SEEDS: u64 = 600;

fn run(seed: u64) -> Result<Stats, String> {
    World::new(seed).run()
}

fn failure(seed: u64, violation: &str) -> String {
    format!(
        "seed {seed}: {violation}\nreplay it: MILLSTREAM_SIM_SEED={seed} cargo test --release -p millstream-driver --lib \
         sim::one_seed -- --nocapture"
    )
}

#[test]
fn every_seed_keeps_the_invariants() {
    let mut sum = Stats::default();
    for seed in 0..SEEDS {
        match run(seed) {
            Ok(stats) => sum.add(&stats),
            Err(violation) => panic!("{}", failure(seed, &violation)),
        }
    }
    println!("{sum:?}");
    // The simulation is worth nothing if the dangerous things do not happen in it.
    for (what, count) in sum.counts() {
        assert!(count >= 20, "{what} happened {count} times in {SEEDS} seeds");
    }
}

#[test]
fn one_seed() {
    let seed = std::env::var("MILLSTREAM_SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut world = World::new(seed);
    world.trace = std::env::var("MILLSTREAM_SIM_SEED").is_ok();
    let first = world.run();
    assert_eq!(first, run(seed), "the same seed gave two different runs");
    if let Err(violation) = first {
        panic!("{}", failure(seed, &violation));
    }
}

fn finds(bug: Bug) {
    plant(Some(bug));
    let found = (0..SEEDS).find_map(|seed| run(seed).err().map(|violation| (seed, violation)));
    plant(None);
    match found {
        Some((seed, violation)) => println!("{bug:?}: seed {seed}: {violation}"),
        None => panic!("the planted bug {bug:?} was not noticed in {SEEDS} seeds"),
    }
}

macro_rules! planted_bug_is_noticed {
    ($($name:ident: $bug:ident,)*) => {
        mod planted {
            use super::{Bug, finds};
            $(#[test]
            fn $name() {
                finds(Bug::$bug);
            })*
        }
    };
}

planted_bug_is_noticed! {
    publish_before_durable: PublishBeforeDurable,
    durable_with_gaps: DurableWithGaps,
    no_chain_check: NoChainCheck,
    old_eras_accepted: OldErasAccepted,
    claim_after_gap: ClaimAfterGap,
    look_at_log_only: LookAtLogOnly,
    manifest_before_published: ManifestBeforePublished,
    dispatch_before_all_ready: DispatchBeforeAllReady,
    void_published: VoidPublished,
    truncate_too_much: TruncateTooMuch,
}
