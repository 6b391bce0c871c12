//! Ports that stay ours.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, SockAddr, Socket, Type};

/// A free loopback port, kept for as long as the value lives.
///
/// The socket is bound and never listens: connecting is refused, nobody else is given the port, and a server that
/// sets SO_REUSEADDR, as they all do, may listen on it, leave it and come back.
#[derive(Debug)]
pub struct ReservedPort {
    _socket: Socket,
    address: SocketAddr,
}

impl ReservedPort {
    /// A port that was free.
    pub fn reserve() -> Self {
        let socket = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        Self { _socket: socket, address }
    }

    /// The address of the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

/// A listener on a reserved port, made not to block.
pub(crate) fn listen(address: SocketAddr) -> std::net::TcpListener {
    let socket = bound(address);
    socket.listen(1024).expect("the port is ours");
    socket.set_nonblocking(true).expect("any socket can be");
    socket.into()
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("a TCP socket knows the option");
    socket.bind(&SockAddr::from(address)).expect("a free loopback port");
    socket
}
