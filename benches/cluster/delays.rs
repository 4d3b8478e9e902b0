//! The network between data centres: a TCP proxy that passes each byte on after a fixed time. (The kernel of small machines
//! has no netem.) A connection keeps its order, and has as much in flight as the delay needs.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pieces of a connection that are in flight in one direction: at most 16 MB.
const IN_FLIGHT: usize = 256;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// Starts a proxy to a port of this machine; returns its port. It ends with the runtime.
pub fn start(runtime: &tokio::runtime::Runtime, target: u16, one_way: Duration) -> u16 {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(connection(near, target, one_way));
        }
    });
    port
}

async fn connection(near: TcpStream, target: u16, one_way: Duration) {
    tokio::time::sleep(one_way).await;
    let Ok(far) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], target))).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(direction(near_in, far_out, one_way), direction(far_in, near_out, one_way));
}

async fn direction(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let read = async move {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            if sender.send((Instant::now() + one_way, piece[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
