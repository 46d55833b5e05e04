#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
//! Real gRPC on loopback.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use millstream_plan::{Attempt, Epoch, Era, ExecutorId, Generation, StageId, TaskId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::encode::Encoder;
use super::sample::{all_types, slices};
use super::*;
use crate::freezing_proxy::FreezingProxy;
use crate::transport::{ConnectError, serve};
use crate::wire::shuffle_v1 as wire;

const NOTICED_WITHIN: Duration = Duration::from_millis(3000);
const PATIENCE: Duration = Duration::from_secs(20);

struct Receiver {
    server: ShuffleServer,
    incoming: mpsc::Receiver<Incoming>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Executor `b`, in `era(1)`.
async fn receiver(options: Options, sink: usize) -> Receiver {
    let (sink, incoming) = mpsc::channel(sink);
    let server = ShuffleServer::new("b".into(), options, sink);
    server.enter(era(1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = server.routes();
    let serving = tokio::spawn(async move { serve(listener, routes, std::future::pending()).await.unwrap() });
    Receiver { server, incoming, address, serving }
}

impl Receiver {
    async fn next(&mut self) -> Incoming {
        tokio::time::timeout(PATIENCE, self.incoming.recv()).await.unwrap().unwrap()
    }

    async fn bundle(&mut self) -> Bundle {
        match self.next().await {
            Incoming::Bundle(bundle) => bundle,
            Incoming::Lost(lost) => panic!("{lost}"),
        }
    }

    async fn lost(&mut self) -> PeerLost {
        match self.next().await {
            Incoming::Lost(lost) => lost,
            Incoming::Bundle(bundle) => panic!("a bundle of epoch {} instead of a loss", bundle.epoch),
        }
    }
}

async fn sender(attempt: u32, address: SocketAddr, options: Options) -> Result<ShuffleSender, ConnectError> {
    ShuffleClient::connect(era(attempt), &"a".into(), &"b".into(), &address.to_string(), &options).await
}

fn era(attempt: u32) -> Era {
    Era { generation: Generation(1), attempt: Attempt(attempt) }
}

fn task(index: u16) -> TaskId {
    TaskId { stage: StageId(1), index }
}

fn frame(edge: u32, sequence: u32, batches: Vec<Rows>) -> Frame {
    Frame { edge, from: task(0), to: task(1), sequence, batches }
}

fn bundle(attempt: u32, epoch: u64, frames: Vec<Frame>, complete: Vec<EdgeEnd>) -> Bundle {
    Bundle { era: era(attempt), epoch: Epoch(epoch), from: "a".into(), frames, complete }
}

/// `bytes` of integers.
fn numbers(bytes: usize) -> Rows {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..bytes as i64 / 8));
    Rows { rows: RecordBatch::try_from_iter([("n", column)]).unwrap(), weights: None }
}

#[tokio::test]
async fn a_hundred_thousand_rows_of_all_types_arrive_as_they_were() {
    let mut receiver = receiver(Options::default(), 64).await;
    let sender = sender(1, receiver.address, Options::default()).await.unwrap();
    let rows = all_types(100_000, 7);
    let weights = Int64Array::from_iter_values((0..100_000).map(|i| i % 5 - 2));
    let mut frames = Vec::new();
    // Slices of several sizes, so that offsets are not multiples of eight; every other frame has weights.
    for (sequence, (from, length)) in slices(100_000).enumerate() {
        let weights = (sequence % 2 == 0).then(|| weights.slice(from, length));
        let batch = Rows { rows: rows.slice(from, length), weights };
        match frames.last_mut() {
            Some(Frame { batches, .. }) if sequence % 3 != 0 => batches.push(batch),
            _ => frames.push(frame(2, sequence as u32, vec![batch])),
        }
    }
    let ends = vec![EdgeEnd { edge: 2, from: task(0) }, EdgeEnd { edge: 3, from: task(0) }];
    sender.send(bundle(1, 9, frames.clone(), ends.clone())).await.unwrap();
    // A bundle without rows is one too.
    sender.send(bundle(1, 10, Vec::new(), ends.clone())).await.unwrap();
    let mut arrived = Vec::new();
    let complete = loop {
        let next = receiver.bundle().await;
        assert_eq!((next.era, next.epoch, next.from), (era(1), Epoch(9), ExecutorId::from("a")));
        arrived.extend(next.frames);
        if !next.complete.is_empty() {
            break next.complete;
        }
    };
    assert_eq!(arrived, frames);
    assert_eq!(complete, ends);
    assert_eq!(receiver.bundle().await, bundle(1, 10, Vec::new(), ends));
    sender.finish().await.unwrap();
    assert!(receiver.incoming.try_recv().is_err(), "a finished stream is not a lost one");
}

#[tokio::test]
async fn the_wire_carries_only_the_bytes_that_views_look_at() {
    let texts = (0..100_000).map(|i| format!("a text that is longer than twelve bytes: {i}"));
    let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
    let rows = RecordBatch::try_from_iter([("text", column)]).unwrap().slice(50_000, 10);
    let sent = bundle(1, 1, vec![frame(1, 0, vec![Rows { rows, weights: None }])], Vec::new());
    let mut frames = sent.frames.clone().into_iter();
    let piece = Encoder::new(1 << 30).piece(sent.epoch, &mut frames, &mut Vec::new()).unwrap().unwrap();
    assert!(piece.cost < 8192, "{} bytes for ten rows", piece.cost);
    let mut receiver = receiver(Options::default(), 64).await;
    let sender = sender(1, receiver.address, Options::default()).await.unwrap();
    sender.send(sent.clone()).await.unwrap();
    assert_eq!(receiver.bundle().await, sent);
}

#[tokio::test]
async fn a_slow_receiver_holds_the_sender_back() {
    const BUNDLE: usize = 256 << 10;
    const COUNT: usize = 40;
    let options = Options { window: 1 << 20, ..Options::default() };
    let mut receiver = receiver(options, 1).await;
    let sender = Arc::new(sender(1, receiver.address, options).await.unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = tokio::spawn({
        let (sender, sent) = (Arc::clone(&sender), Arc::clone(&sent));
        async move {
            for epoch in 0..COUNT {
                let frames = vec![frame(1, 0, vec![numbers(BUNDLE)])];
                sender.send(bundle(1, epoch as u64, frames, Vec::new())).await.unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    // Three fit the window (headers come on top), one more is in the sink, whose credit is back.
    let most = 4;
    let deadline = Instant::now() + PATIENCE;
    while sent.load(Ordering::SeqCst) < most {
        assert!(Instant::now() < deadline, "the window is not used");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for epoch in 0..COUNT {
        let ahead = sent.load(Ordering::SeqCst) - epoch;
        assert!(ahead <= most, "{ahead} bundles ahead of the receiver");
        assert!(sender.in_flight() <= options.window as usize);
        assert_eq!(receiver.bundle().await.epoch, Epoch(epoch as u64));
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_bundle_larger_than_the_window_passes_and_one_larger_than_the_limit_does_not() {
    let options = Options { window: 64 << 10, max_bundle: 4 << 20, ..Options::default() };
    let mut receiver = receiver(options, 4).await;
    let sender = sender(1, receiver.address, options).await.unwrap();
    for epoch in 0..3 {
        let sent = bundle(1, epoch, vec![frame(1, 0, vec![numbers(3 << 20)])], Vec::new());
        sender.send(sent.clone()).await.unwrap();
        assert_eq!(receiver.bundle().await, sent);
    }
    let error = sender.send(bundle(1, 4, vec![frame(1, 0, vec![numbers(5 << 20)])], Vec::new())).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { edge: 1, limit: 4_194_304, .. }), "{error}");
    let error = sender.send(bundle(1, 5, Vec::new(), Vec::new())).await.unwrap_err();
    assert!(matches!(error, SendError::Lost(_)), "the stream is of no more use: {error}");
}

#[tokio::test]
async fn lower_eras_are_refused_and_end_when_they_are_left() {
    let mut receiver = receiver(Options::default(), 4).await;
    let old = sender(1, receiver.address, Options::default()).await.unwrap();
    let some = |attempt, epoch| bundle(attempt, epoch, vec![frame(1, 0, vec![numbers(800)])], Vec::new());
    old.send(some(1, 1)).await.unwrap();
    assert_eq!(receiver.bundle().await, some(1, 1));
    receiver.server.enter(era(2));
    let lost = tokio::time::timeout(PATIENCE, old.lost()).await.unwrap();
    assert_eq!(lost.to_string(), "lost executor 'b' in era 1.1: it has left era 1.1 for 1.2");
    assert_eq!(old.send(some(1, 2)).await.unwrap_err(), SendError::Lost(lost));
    receiver.server.enter(era(1));
    let ConnectError::Refused { reason, .. } = sender(1, receiver.address, Options::default()).await.err().unwrap()
    else {
        panic!("wrong kind")
    };
    assert_eq!(reason, "it has left era 1.1 for 1.2");
    let new = sender(2, receiver.address, Options::default()).await.unwrap();
    new.send(some(2, 1)).await.unwrap();
    // Neither a loss nor a bundle of the old era comes before it.
    assert_eq!(receiver.bundle().await, some(2, 1));
}

#[tokio::test]
async fn a_higher_era_waits_until_it_is_entered() {
    let mut receiver = receiver(Options::default(), 4).await;
    let some = |attempt| bundle(attempt, 1, vec![frame(1, 0, vec![numbers(800)])], Vec::new());
    let early = sender(2, receiver.address, Options::default()).await.unwrap();
    early.send(some(2)).await.unwrap();
    let current = sender(1, receiver.address, Options::default()).await.unwrap();
    current.send(some(1)).await.unwrap();
    assert_eq!(receiver.bundle().await, some(1));
    assert!(receiver.incoming.try_recv().is_err());
    receiver.server.enter(era(2));
    assert_eq!(receiver.bundle().await, some(2));
}

#[tokio::test]
async fn a_higher_era_does_not_wait_for_ever() {
    let options = Options { era_patience: Duration::from_millis(20), ..Options::default() };
    let receiver = receiver(options, 4).await;
    let early = sender(2, receiver.address, options).await.unwrap();
    let lost = tokio::time::timeout(PATIENCE, early.lost()).await.unwrap();
    assert_eq!(lost.reason, "it has not entered era 1.2 in time");
}

#[tokio::test]
async fn a_second_stream_and_a_stranger_are_refused() {
    let receiver = receiver(Options::default(), 4).await;
    let _first = sender(1, receiver.address, Options::default()).await.unwrap();
    let refusal = |error| match error {
        ConnectError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let second = sender(1, receiver.address, Options::default()).await.err().unwrap();
    assert_eq!(refusal(second), "it has had a stream from 'a' in era 1.1");
    let address = receiver.address.to_string();
    let stranger = ShuffleClient::connect(era(1), &"a".into(), &"c".into(), &address, &Options::default()).await;
    assert_eq!(refusal(stranger.err().unwrap()), "it is executor 'b', not 'c'");
}

#[tokio::test]
async fn a_lost_peer_is_noticed_on_both_sides_within_3_s() {
    for freeze in [false, true] {
        let mut receiver = receiver(Options::default(), 4).await;
        let proxy = FreezingProxy::to(receiver.address).await.unwrap();
        let sender = sender(1, proxy.address, Options::default()).await.unwrap();
        let sent = bundle(1, 1, vec![frame(1, 0, vec![numbers(800)])], Vec::new());
        sender.send(sent.clone()).await.unwrap();
        assert_eq!(receiver.bundle().await, sent);
        let at = Instant::now();
        if freeze {
            proxy.freeze();
        } else {
            proxy.cut();
        }
        let (there, here) = tokio::join!(receiver.lost(), tokio::time::timeout(PATIENCE, sender.lost()));
        let took = at.elapsed();
        let here = here.unwrap();
        assert!(took <= NOTICED_WITHIN, "{there} / {here} after {took:?}");
        assert_eq!((there.era, there.executor, here.era, here.executor), (era(1), "a".into(), era(1), "b".into()));
    }
}

#[tokio::test]
async fn a_damaged_stream_is_lost_and_the_others_go_on() {
    let mut receiver = receiver(Options::default(), 4).await;
    let channel = crate::transport::connect(&receiver.address.to_string()).await.unwrap();
    let open = wire::Open {
        version: VERSION,
        generation: 1,
        attempt: 1,
        from_executor: "evil".to_owned(),
        to_executor: "b".to_owned(),
    };
    let batch = wire::Batch {
        from: Some(wire::TaskId::default()),
        to: Some(wire::TaskId::default()),
        body_length: u64::MAX,
        ..wire::Batch::default()
    };
    let parts =
        [wire::part::Part::Open(open), wire::part::Part::Batch(batch)].map(|part| wire::Part { part: Some(part) });
    let parts = futures::stream::iter(parts).chain(futures::stream::pending());
    let mut client = wire::shuffle_client::ShuffleClient::new(channel);
    let mut credits = client.exchange(parts).await.unwrap().into_inner();
    let lost = receiver.lost().await;
    assert_eq!(lost.executor, ExecutorId::from("evil"));
    assert!(lost.reason.contains("the limit is"), "{}", lost.reason);
    assert_eq!(credits.message().await.unwrap_err().message(), lost.reason);
    let sender = sender(1, receiver.address, Options::default()).await.unwrap();
    let sent = bundle(1, 1, vec![frame(1, 0, vec![numbers(800)])], Vec::new());
    sender.send(sent.clone()).await.unwrap();
    assert_eq!(receiver.bundle().await, sent);
}

/// Prints MiB/s of one stream on loopback: `cargo test --release -p millstream-protocol -- --ignored --nocapture throughput`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput_of_one_stream() {
    const BATCHES: usize = 2_000;
    let mut receiver = receiver(Options::default(), 16).await;
    let sender = sender(1, receiver.address, Options::default()).await.unwrap();
    let batch = numbers(1 << 20);
    let started = Instant::now();
    let sending = tokio::spawn(async move {
        for epoch in 0..BATCHES {
            let frames = vec![frame(1, 0, vec![batch.clone()])];
            sender.send(bundle(1, epoch as u64, frames, Vec::new())).await.unwrap();
        }
        sender.finish().await.unwrap();
    });
    for _ in 0..BATCHES {
        receiver.bundle().await;
    }
    sending.await.unwrap();
    println!("{:.0} MiB/s", BATCHES as f64 / started.elapsed().as_secs_f64());
}
