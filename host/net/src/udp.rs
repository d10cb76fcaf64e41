//! UDP sockets: bound, sized, non-blocking, shared by all workers.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Type};

use crate::config::NetConfig;
use crate::error::SendError;
use crate::wildcard::Homes;

/// A UDP listener.
pub(crate) struct Socket {
    inner: UdpSocket,
    /// Of one that is bound to every address.
    homes: Option<Homes>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// The longest datagram that IP can carry, and one byte to see that it was not
/// longer.
pub(crate) const MAX_DATAGRAM: usize = 65_536;

/// Binds a UDP listener.
pub(crate) fn bind(address: SocketAddr, config: &NetConfig) -> io::Result<Socket> {
    let socket = socket2::Socket::new(
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
    // What the network cannot deliver comes back to the error queue, with the reason.
    let reports = if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)
    };
    if let Err(error) = reports {
        tracing::debug!(%address, %error, "undeliverable datagrams will not be reported");
    }
    let homes = if address.ip().is_unspecified() {
        // Says where a datagram arrived.
        let told = if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
        };
        told?;
        Some(Homes::default())
    } else {
        None
    };
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(Socket {
        inner: socket.into(),
        homes,
    })
}

/// Room for what the kernel says about a datagram that arrived.
pub(crate) fn control() -> Vec<u8> {
    nix::cmsg_space!(libc::in6_pktinfo)
}

impl Socket {
    /// The address that it is bound to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Receives one datagram without blocking. `control` is memory.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        control: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        let Some(homes) = &self.homes else {
            return self.inner.recv_from(buffer);
        };
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.inner.as_raw_fd(),
            &mut parts,
            Some(control),
            MsgFlags::empty(),
        )?;
        let peer = received
            .address
            .as_ref()
            .and_then(address_of)
            .ok_or(io::ErrorKind::InvalidData)?;
        let ours = received.cmsgs().ok().and_then(|mut messages| {
            messages.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::V4(Ipv4Addr::from(
                    u32::from_be(info.ipi_spec_dst.s_addr),
                ))),
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
                }
                _ => None,
            })
        });
        if let Some(ours) = ours.filter(|ours| !ours.is_multicast()) {
            homes.note(peer, ours);
        }
        Ok((received.bytes, peer))
    }

    fn send_once(&self, peer: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        let Some(ours) = self.homes.as_ref().and_then(|homes| homes.of(peer)) else {
            return self.inner.send_to(bytes, peer).map(drop);
        };
        let parts = [IoSlice::new(bytes)];
        let fd = self.inner.as_raw_fd();
        let to = SockaddrStorage::from(peer);
        let send = |from| sendmsg(fd, &parts, &[from], MsgFlags::empty(), Some(&to));
        let sent = match ours {
            IpAddr::V4(ours) => {
                let address = |s_addr| libc::in_addr { s_addr };
                send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: address(u32::from(ours).to_be()),
                    ipi_addr: address(0),
                }))
            }
            IpAddr::V6(ours) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ours.octets(),
                },
                ipi6_ifindex: 0,
            })),
        };
        match sent {
            Ok(_) => Ok(()),
            // The address is ours no more.
            Err(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH) => {
                self.inner.send_to(bytes, peer).map(drop)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// How often a send is tried that fails with what may be another's failure.
const TRIES: usize = 4;

/// Sends one datagram without blocking.
pub(crate) fn send(socket: &Socket, peer: SocketAddr, bytes: &[u8]) -> Result<(), SendError> {
    let mut tries = 0;
    loop {
        let Err(error) = socket.send_once(peer, bytes) else {
            return Ok(());
        };
        let failed = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINTR) => continue,
            // The socket's buffer or the interface's queue is full.
            Some(Errno::EAGAIN | Errno::ENOBUFS) => return Err(SendError::Congested),
            Some(Errno::EMSGSIZE) => SendError::TooLarge,
            _ => SendError::Unreachable(error.kind()),
        };
        // The socket tells of an earlier datagram that came back in place of sending
        // this one. Being told takes the error off, so a failure that stays is ours.
        tries += 1;
        if tries == TRIES {
            return Err(failed);
        }
    }
}

/// Counts datagrams that found no room on their way out. Such a one is lost as any
/// datagram may be, and a later copy mends it: no failure of its next hop.
#[derive(Debug, Default)]
pub(crate) struct Losses(AtomicU64);

impl Losses {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What sending came to, apart from a loss.
    pub(crate) fn bear(&self, sent: Result<(), SendError>) -> Result<(), SendError> {
        match sent {
            Err(SendError::Congested) => {
                self.0.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            sent => sent,
        }
    }
}

/// What an entry of a socket's error queue says.
#[derive(Debug)]
pub(crate) enum Report {
    /// A datagram to `peer` will never arrive.
    Undeliverable {
        /// Where it was sent.
        peer: SocketAddr,
        /// How much of it came back.
        length: usize,
    },
    /// Nothing that a later copy could not mend.
    Passing,
}

/// Takes one entry off a socket's error queue; what came back of the datagram is in
/// `quoted` then. `None`: the queue is empty.
pub(crate) fn take_report(socket: &Socket, quoted: &mut [u8]) -> Option<Report> {
    let mut control = nix::cmsg_space!(
        libc::in6_pktinfo,
        libc::sock_extended_err,
        libc::sockaddr_in6
    );
    let mut parts = [IoSliceMut::new(quoted)];
    let report = recvmsg::<SockaddrStorage>(
        socket.inner.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_ERRQUEUE,
    )
    .ok()?;
    let fatal = report.cmsgs().is_ok_and(|mut messages| {
        messages.any(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, _)
            | ControlMessageOwned::Ipv6RecvErr(error, _) => is_fatal(&error),
            _ => false,
        })
    });
    let peer = report.address.as_ref().and_then(address_of);
    Some(match peer {
        Some(peer) if fatal => Report::Undeliverable {
            peer,
            length: report.bytes,
        },
        _ => Report::Passing,
    })
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4));
    let v6 = address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6));
    v4.map(SocketAddr::from).or(v6.map(SocketAddr::from))
}

/// RFC 3261 section 18.4: host, network, port or protocol unreachable and parameter
/// problems are told; source quench and an exceeded time are not. Nor is a datagram
/// too big for the path: the kernel fragments the next one.
fn is_fatal(error: &libc::sock_extended_err) -> bool {
    /// RFC 792: destination unreachable, its code for "fragmentation needed", and
    /// parameter problem.
    const UNREACHABLE: u8 = 3;
    const TOO_BIG: u8 = 4;
    const PARAMETER: u8 = 12;
    /// RFC 4443: destination unreachable, parameter problem.
    const UNREACHABLE_6: u8 = 1;
    const PARAMETER_6: u8 = 4;
    match (error.ee_origin, error.ee_type) {
        (libc::SO_EE_ORIGIN_ICMP, UNREACHABLE) => error.ee_code != TOO_BIG,
        (libc::SO_EE_ORIGIN_ICMP, PARAMETER) => true,
        (libc::SO_EE_ORIGIN_ICMP6, UNREACHABLE_6 | PARAMETER_6) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The network cannot be made to refuse on loopback: a datagram leaves the send
    /// buffer at once.
    #[test]
    fn a_full_buffer_is_a_loss_and_no_failure() {
        let losses = Losses::default();
        assert_eq!(losses.bear(Ok(())), Ok(()));
        assert_eq!(losses.count(), 0);
        for count in 1..=3 {
            assert_eq!(losses.bear(Err(SendError::Congested)), Ok(()));
            assert_eq!(losses.count(), count);
        }
        for failure in [
            SendError::TooLarge,
            SendError::Unreachable(io::ErrorKind::NetworkUnreachable),
        ] {
            assert_eq!(losses.bear(Err(failure)), Err(failure));
        }
        assert_eq!(losses.count(), 3);
    }
}
