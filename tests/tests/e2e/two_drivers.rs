//! Two drivers on one checkpoint location: one of them leads, and the other can neither write nor publish.

use std::thread::sleep;
use std::time::Duration;

use millstream_tests::cluster::{Cluster, Member};
use millstream_tests::kafka::Broker;
use millstream_tests::s3::S3;
use millstream_tests::shop::Shop;
use millstream_tests::{temp_dir, unique};

const EXECUTORS: usize = 2;
/// How long after it has shown output a cluster is frozen.
const MOMENTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(130), Duration::from_millis(370)];
const TIMEOUT: Duration = Duration::from_secs(90);
/// A driver that leads no more finds out within this time.
const FENCED_WITHIN: Duration = Duration::from_secs(20);

fn shop(name: &str) -> Shop<'static> {
    Shop::new(Broker::shared(), S3::shared().create_bucket(&unique(name)), name, 7)
}

fn cluster(shop: &Shop<'_>, checkpoints: &str) -> Cluster {
    Cluster::new(&shop.sql(), &[("checkpointLocation", checkpoints)], &S3::shared().env(), EXECUTORS)
}

/// The driver ends by itself, with an error that names the other one.
fn assert_replaced(cluster: &mut Cluster) {
    let status = cluster.wait(Member::Driver, FENCED_WITHIN);
    assert_eq!(status.code(), Some(1), "a driver that was replaced ends with an error");
    let said = cluster.said(Member::Driver);
    assert!(said.contains("another driver"), "the error names another driver:\n{said}");
}

#[test]
fn drivers_that_were_frozen_at_work_publish_nothing_when_they_wake_up() {
    let shop = shop("frozen");
    let mut leading = cluster(&shop, &shop.checkpoints());
    shop.produce_during(|| {
        leading.start_all();
        shop.wait_for_progress(TIMEOUT);
        for moment in MOMENTS {
            // Only chooses what is in flight when it freezes.
            sleep(moment);
            // One executor stays awake: it has output that it may not publish any more.
            let frozen = [Member::Executor(0), Member::Driver];
            frozen.iter().for_each(|member| leading.process(*member).freeze());
            let mut next = cluster(&shop, &shop.checkpoints());
            next.start_all();
            shop.wait_for_progress(TIMEOUT);
            // The executor goes on with its transaction and its files before anybody can tell it to stop.
            for member in frozen {
                leading.process(member).thaw();
                shop.wait_for_progress(TIMEOUT);
            }
            assert_replaced(&mut leading);
            next.assert_alive();
            leading = next;
        }
    });
    shop.finish(&mut leading, TIMEOUT);
}

#[test]
fn a_second_driver_takes_over_from_one_at_work() {
    let shop = shop("takeover");
    let (mut first, mut second) = (cluster(&shop, &shop.checkpoints()), cluster(&shop, &shop.checkpoints()));
    shop.produce_during(|| {
        first.start_all();
        shop.wait_for_progress(TIMEOUT);
        second.start_all();
        assert_replaced(&mut first);
        shop.wait_for_progress(TIMEOUT);
        second.assert_alive();
    });
    shop.finish(&mut second, TIMEOUT);
}

#[test]
fn a_second_driver_is_refused_while_the_first_holds_a_local_checkpoint_location() {
    let (shop, folder) = (shop("local"), temp_dir());
    let checkpoints = folder.path().display().to_string();
    let (mut first, mut second) = (cluster(&shop, &checkpoints), cluster(&shop, &checkpoints));
    shop.produce_during(|| {
        first.start_all();
        shop.wait_for_progress(TIMEOUT);
        first.process(Member::Driver).freeze();
        // Frozen or not: alive.
        second.start_all();
        let status = second.wait(Member::Driver, FENCED_WITHIN);
        assert_ne!(status.code(), Some(0));
        let said = second.said(Member::Driver);
        assert!(said.contains(&checkpoints) && said.contains("another driver"), "the error says what is held:\n{said}");
        first.process(Member::Driver).thaw();
        shop.wait_for_progress(TIMEOUT);
        for member in first.members() {
            first.kill(member);
        }
        second.start(Member::Driver);
        shop.wait_for_progress(TIMEOUT);
    });
    shop.finish(&mut second, TIMEOUT);
}
