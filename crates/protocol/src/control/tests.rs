#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millstream_plan::{Attempt, Epoch, Era, ExecutorId, Generation};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::freezing_proxy::FreezingProxy;
use crate::transport::{ConnectError, serve};

/// What is promised, and what a loaded machine may add before a test calls the promise broken.
const NOTICED_WITHIN: Duration = Duration::from_millis(3000);
const PATIENCE: Duration = Duration::from_secs(20);

struct Driver {
    server: ControlServer,
    events: mpsc::Receiver<FromExecutor>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn driver() -> Driver {
    let (server, events) = ControlServer::new(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = server.routes();
    let serving = tokio::spawn(async move { serve(listener, routes, std::future::pending()).await.unwrap() });
    Driver { server, events, address, serving }
}

fn hello(name: &str) -> Hello {
    Hello { executor: name.into(), slots: 2, shuffle: "127.0.0.1:1".to_owned(), version: "test".to_owned() }
}

fn era() -> Era {
    Era { generation: Generation(3), attempt: Attempt(7) }
}

impl Driver {
    async fn next(&mut self) -> FromExecutor {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap()
    }

    async fn joined(&mut self, name: &str) -> Arc<dyn ExecutorLink> {
        match self.next().await {
            (id, ControlEvent::Joined(joined, link)) => {
                assert_eq!((id, joined), (ExecutorId::from(name), hello(name)));
                link
            }
            (id, ControlEvent::Message(message)) => panic!("{id}: {message:?} instead of Joined"),
            (id, ControlEvent::Left { reason }) => panic!("{id} left instead of Joined: {reason}"),
        }
    }

    async fn message(&mut self) -> ToDriver {
        match self.next().await {
            (_, ControlEvent::Message(message)) => message,
            (id, ControlEvent::Joined(..)) => panic!("{id} joined instead of a message"),
            (id, ControlEvent::Left { reason }) => panic!("{id} left instead of a message: {reason}"),
        }
    }

    async fn left(&mut self, name: &str) -> String {
        match self.next().await {
            (id, ControlEvent::Left { reason }) => {
                assert_eq!(id, ExecutorId::from(name));
                reason
            }
            (id, ControlEvent::Joined(..)) => panic!("{id} joined instead of Left"),
            (id, ControlEvent::Message(message)) => panic!("{id}: {message:?} instead of Left"),
        }
    }
}

async fn ended(inbox: &mut DriverInbox) -> String {
    tokio::time::timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap_err().reason
}

async fn exchange(driver: &mut Driver, link: DriverLink, mut inbox: DriverInbox) {
    let executor = driver.joined("a").await;
    for epoch in 1..=100 {
        executor.send(ToExecutor::Durable { era: era(), epoch: Epoch(epoch) }).unwrap();
        link.send(ToDriver::Heartbeat { memory_bytes: epoch }).unwrap();
    }
    for epoch in 1..=100 {
        assert_eq!(inbox.recv().await.unwrap(), ToExecutor::Durable { era: era(), epoch: Epoch(epoch) });
        assert_eq!(driver.message().await, ToDriver::Heartbeat { memory_bytes: epoch });
    }
    link.send(ToDriver::Bye).unwrap();
    drop(link);
    assert_eq!(driver.message().await, ToDriver::Bye);
    assert_eq!(driver.left("a").await, "the executor has closed the connection");
    ended(&mut inbox).await;
    assert!(executor.send(ToExecutor::Shutdown).is_err());
}

#[tokio::test]
async fn messages_arrive_in_order_over_grpc_and_inside_the_process() {
    let mut driver = driver().await;
    let (link, inbox) = ControlClient::connect(&driver.address.to_string(), hello("a")).await.unwrap();
    exchange(&mut driver, link, inbox).await;
    let (link, inbox) = driver.server.local(hello("a"));
    exchange(&mut driver, link, inbox).await;
}

#[tokio::test]
async fn closing_delivers_what_is_queued_and_the_reason() {
    let mut driver = driver().await;
    let (_remote, remote_inbox) = ControlClient::connect(&driver.address.to_string(), hello("a")).await.unwrap();
    let remote = driver.joined("a").await;
    let (_local, local_inbox) = driver.server.local(hello("b"));
    let local = driver.joined("b").await;
    for (name, executor, mut inbox) in [("a", remote, remote_inbox), ("b", local, local_inbox)] {
        executor.send(ToExecutor::Shutdown).unwrap();
        executor.close("version 1 is not 2");
        executor.close("only the first reason counts");
        assert_eq!(inbox.recv().await.unwrap(), ToExecutor::Shutdown);
        assert_eq!(ended(&mut inbox).await, "version 1 is not 2");
        assert_eq!(driver.left(name).await, "version 1 is not 2");
        assert_eq!(executor.send(ToExecutor::Shutdown).unwrap_err().reason, "version 1 is not 2");
    }
}

#[tokio::test]
async fn a_second_connection_replaces_the_first() {
    let mut driver = driver().await;
    let address = driver.address.to_string();
    let (first_link, mut first_inbox) = ControlClient::connect(&address, hello("a")).await.unwrap();
    let first = driver.joined("a").await;
    let (link, mut inbox) = ControlClient::connect(&address, hello("a")).await.unwrap();
    assert_eq!(driver.left("a").await, super::server::REPLACED);
    let second = driver.joined("a").await;
    assert_eq!(ended(&mut first_inbox).await, super::server::REPLACED);
    assert!(first.send(ToExecutor::Shutdown).is_err());
    // What the older connection still says is not heard.
    let _ = first_link.send(ToDriver::Bye);
    link.send(ToDriver::Ready { era: era() }).unwrap();
    assert_eq!(driver.message().await, ToDriver::Ready { era: era() });
    second.send(ToExecutor::Shutdown).unwrap();
    assert_eq!(inbox.recv().await.unwrap(), ToExecutor::Shutdown);
}

#[tokio::test]
async fn a_lost_executor_leaves_within_3_s() {
    for freeze in [false, true] {
        let mut driver = driver().await;
        let proxy = FreezingProxy::to(driver.address).await.unwrap();
        let (link, mut inbox) = ControlClient::connect(&proxy.address.to_string(), hello("a")).await.unwrap();
        driver.joined("a").await;
        link.send(ToDriver::Ready { era: era() }).unwrap();
        driver.message().await;
        let lost = Instant::now();
        if freeze {
            proxy.freeze();
        } else {
            proxy.cut();
        }
        let (reason, ended) = tokio::join!(driver.left("a"), ended(&mut inbox));
        assert!(lost.elapsed() <= NOTICED_WITHIN, "{reason} / {ended} after {:?}", lost.elapsed());
    }
}

#[tokio::test]
async fn a_driver_that_is_killed_is_noticed() {
    let (server, mut events) = ControlServer::new(16);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = server.routes();
    runtime.spawn(async move { serve(TcpListener::from_std(listener).unwrap(), routes, std::future::pending()).await });
    let (_link, mut inbox) = ControlClient::connect(&address, hello("a")).await.unwrap();
    events.recv().await.unwrap();
    let killed = Instant::now();
    runtime.shutdown_background();
    ended(&mut inbox).await;
    assert!(killed.elapsed() <= NOTICED_WITHIN);
}

#[tokio::test]
async fn connecting_to_nothing_to_silence_and_to_nonsense_fails_soon() {
    let started = Instant::now();
    let error = |address: String| async move { ControlClient::connect(&address, hello("a")).await.err().unwrap() };
    assert_eq!(error("driver".to_owned()).await, ConnectError::Address("driver".to_owned()));
    assert_eq!(error(":1".to_owned()).await, ConnectError::Address(":1".to_owned()));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ConnectError::Unreachable { reason, .. } = error(free.to_string()).await else { panic!("wrong kind") };
    assert!(reason.contains("refused"), "{reason}");
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = error(silent.local_addr().unwrap().to_string()).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_executor_that_does_not_read_is_dropped_instead_of_filling_memory() {
    let mut driver = driver().await;
    let (_link, _inbox) = driver.server.local(hello("a"));
    let executor = driver.joined("a").await;
    let sent = (0..).take_while(|_| executor.send(ToExecutor::Shutdown).is_ok()).count();
    assert_eq!(sent, MAILBOX);
    let reason = driver.left("a").await;
    assert!(reason.contains("mailbox is full"), "{reason}");
}

#[tokio::test]
async fn a_driver_that_does_not_read_holds_executors_back_instead_of_filling_memory() {
    let mut driver = driver().await;
    let (link, _inbox) = driver.server.local(hello("a"));
    driver.joined("a").await;
    let mut sent = 0;
    while link.send(ToDriver::Heartbeat { memory_bytes: sent }).is_ok() {
        sent += 1;
        tokio::task::yield_now().await;
    }
    // The mailbox, the driver's events, and one in the hand.
    assert!(sent as usize <= MAILBOX + 17, "{sent}");
    for expected in 0..sent {
        assert_eq!(driver.message().await, ToDriver::Heartbeat { memory_bytes: expected });
    }
    driver.left("a").await;
}
