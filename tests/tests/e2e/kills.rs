//! Processes killed with SIGKILL at random moments, the driver too, and disks lost: every expected row is there exactly once.
//!
//! What is killed when is a function of the seed, which each test prints. `MILLSTREAM_TEST_SEED` sets another one and
//! `MILLSTREAM_TEST_KILLS` another number of kills, for long runs and to see a failure again.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::str::FromStr;
use std::time::Duration;

use millstream_tests::cluster::{Cluster, Member};
use millstream_tests::kafka::Broker;
use millstream_tests::s3::S3;
use millstream_tests::shop::Shop;
use millstream_tests::unique;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const EXECUTORS: usize = 3;
/// One victim in so many is killed together with another.
const PAIRS: u32 = 4;
/// Longest time between two kills, in milliseconds: some hit a pipeline at work, some one that recovers.
const BETWEEN: u64 = 1_500;
/// Longest time before what was killed is started again, in milliseconds.
const AWAY: u64 = 600;
/// After so many kills output must have come.
const PROGRESS_AFTER: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(90);

#[test]
fn thirty_kills_of_random_processes_lose_and_double_nothing() {
    let (shop, mut cluster, mut chaos) = set_up("kills", 3_141_592_653);
    shop.produce_during(|| {
        cluster.start_all();
        shop.wait_for_progress(TIMEOUT);
        chaos.kill(&mut cluster, &shop, from_env("MILLSTREAM_TEST_KILLS").unwrap_or(30));
    });
    shop.finish(&mut cluster, TIMEOUT);
    println!("{} orders", shop.produced());
}

#[test]
fn kills_and_the_loss_of_all_disks_lose_and_double_nothing() {
    let (shop, mut cluster, mut chaos) = set_up("wiped", 2_718_281_828);
    shop.produce_during(|| {
        cluster.start_all();
        shop.wait_for_progress(TIMEOUT);
        chaos.kill(&mut cluster, &shop, 5);
        for member in cluster.members() {
            cluster.kill(member);
        }
        cluster.wipe_disks();
        cluster.start_all();
        shop.wait_for_progress(TIMEOUT);
        chaos.kill(&mut cluster, &shop, 5);
    });
    shop.finish(&mut cluster, TIMEOUT);
    println!("{} orders", shop.produced());
}

fn set_up(name: &str, seed: u64) -> (Shop<'static>, Cluster, Chaos) {
    let seed = from_env("MILLSTREAM_TEST_SEED").unwrap_or(seed);
    println!("{name}: MILLSTREAM_TEST_SEED={seed}");
    let s3 = S3::shared();
    let shop = Shop::new(Broker::shared(), s3.create_bucket(&unique(name)), name, seed);
    let cluster = Cluster::new(&shop.sql(), &[("checkpointLocation", &shop.checkpoints())], &s3.env(), EXECUTORS);
    (shop, cluster, Chaos(StdRng::seed_from_u64(seed)))
}

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} = '{text}' is no number")))
}

/// Decides who is killed when.
struct Chaos(StdRng);

impl Chaos {
    /// Kills processes, and starts each of them again after a pause, until so many were killed.
    fn kill(&mut self, cluster: &mut Cluster, shop: &Shop<'_>, kills: usize) {
        let (mut done, mut checked) = (0, 0);
        while done < kills {
            self.pause(BETWEEN);
            let together = if self.0.random_ratio(1, PAIRS) { 2 } else { 1 };
            let victims = self.victims(cluster, together.min(kills - done));
            for victim in &victims {
                cluster.kill(*victim);
            }
            for victim in &victims {
                self.pause(AWAY);
                cluster.start(*victim);
            }
            done += victims.len();
            println!("killed {victims:?}, {done} of {kills}");
            if done >= checked + PROGRESS_AFTER {
                shop.wait_for_progress(TIMEOUT);
                checked = done;
            }
        }
        cluster.assert_alive();
    }

    fn victims(&mut self, cluster: &Cluster, count: usize) -> Vec<Member> {
        cluster.members().choose_multiple(&mut self.0, count).copied().collect()
    }

    /// A moment that nothing waits for: it only chooses what the next kill hits.
    fn pause(&mut self, longest: u64) {
        std::thread::sleep(Duration::from_millis(self.0.random_range(0..=longest)));
    }
}
