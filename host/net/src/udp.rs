//! UDP sockets: bound, sized, non-blocking, shared by all workers.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::NetConfig;
use crate::error::SendError;

/// The longest datagram that IP can carry, and one byte to see that it was not
/// longer.
pub(crate) const MAX_DATAGRAM: usize = 65_536;

/// Binds a UDP listener.
pub(crate) fn bind(address: SocketAddr, config: &NetConfig) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        // Otherwise `[::]` would take IPv4 as well, in mapped form, and a
        // listener on 0.0.0.0 beside it could not be bound.
        socket.set_only_v6(true)?;
    }
    // A burst must wait in the kernel while a policy decides. The kernel gives
    // what it allows; less than asked for is no reason not to start.
    for (asked, result, given) in [
        (
            config.udp_receive_buffer,
            socket.set_recv_buffer_size(config.udp_receive_buffer),
            socket.recv_buffer_size(),
        ),
        (
            config.udp_send_buffer,
            socket.set_send_buffer_size(config.udp_send_buffer),
            socket.send_buffer_size(),
        ),
    ] {
        let given = given.unwrap_or_default();
        if result.is_err() || given < asked {
            tracing::debug!(%address, asked, given, "the kernel gave a smaller udp buffer");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sends one datagram without blocking.
pub(crate) fn send(socket: &UdpSocket, peer: SocketAddr, bytes: &[u8]) -> Result<(), SendError> {
    loop {
        let Err(error) = socket.send_to(bytes, peer) else {
            return Ok(());
        };
        return Err(match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINTR) => continue,
            // The socket's buffer or the interface's queue is full.
            Some(Errno::EAGAIN | Errno::ENOBUFS) => SendError::Congested,
            Some(Errno::EMSGSIZE) => SendError::TooLarge,
            _ => SendError::Unreachable(error.kind()),
        });
    }
}
