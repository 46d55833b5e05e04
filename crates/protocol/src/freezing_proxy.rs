//! A TCP proxy whose connections can be frozen (both sides stay connected, nothing passes: what a stopped process or a vanished host
//! looks like) or cut.
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Frozen,
    Cut,
}

pub(crate) struct FreezingProxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl FreezingProxy {
    pub(crate) async fn to(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Forward);
        let modes = mode.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if let Ok(far) = TcpStream::connect(target).await {
                    tokio::spawn(relay(near, far, modes.clone()));
                }
            }
        });
        Ok(Self { address, mode, accepting })
    }

    pub(crate) fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

impl Drop for FreezingProxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn relay(mut near: TcpStream, mut far: TcpStream, mut modes: watch::Receiver<Mode>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        _ = modes.wait_for(|mode| *mode != Mode::Forward) => {}
    }
    // Frozen: hold both sockets and pass nothing until cut.
    let _ = modes.wait_for(|mode| *mode == Mode::Cut).await;
}
