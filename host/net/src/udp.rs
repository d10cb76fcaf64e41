//! UDP sockets: bound, sized, non-blocking, shared by all workers.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, MsgHdr, Protocol, SockAddr, SockRef, Type};

use crate::config::NetConfig;
use crate::error::SendError;

/// A UDP listener.
pub(crate) struct Socket {
    inner: UdpSocket,
    /// Bound to every address of the machine. The kernel would choose where a datagram
    /// leaves from, and a peer that wrote to another of our addresses, or the NAT before
    /// it, would not know whose it is.
    everywhere: bool,
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
    let everywhere = address.ip().is_unspecified();
    if everywhere {
        // Says where a datagram arrived.
        let told = if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)
        };
        told?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(Socket {
        inner: socket.into(),
        everywhere,
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

    /// Receives one datagram without blocking: its length, its sender, and which of our
    /// addresses it was sent to, if the socket has several. `control` is memory.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        control: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        if !self.everywhere {
            let (length, peer) = self.inner.recv_from(buffer)?;
            return Ok((length, peer, None));
        }
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
        // Nothing can be sent from a group's address.
        let ours = ours.filter(|ours| !ours.is_multicast() && !ours.is_unspecified());
        Ok((received.bytes, peer, ours))
    }

    fn send_once(&self, peer: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) -> io::Result<()> {
        let Some(from) = from.filter(|from| self.everywhere && from.is_ipv4() == peer.is_ipv4())
        else {
            return self.inner.send_to(bytes, peer).map(drop);
        };
        let (source, length) = source(from);
        let control = source.get(..length).unwrap_or_default();
        let (to, parts) = (SockAddr::from(peer), [IoSlice::new(bytes)]);
        let message = MsgHdr::new().with_addr(&to).with_buffers(&parts);
        let sent = SockRef::from(&self.inner).sendmsg(&message.with_control(control), 0);
        let Err(error) = sent else { return Ok(()) };
        match error.raw_os_error().map(Errno::from_raw) {
            // The address is ours no more.
            Some(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH) => {
                self.inner.send_to(bytes, peer).map(drop)
            }
            _ => Err(error),
        }
    }
}

/// A control message that names the address that a datagram leaves from, and its length:
/// `IP_PKTINFO` (ip(7)) or `IPV6_PKTINFO` (RFC 3542 section 4), laid out as cmsg(3) says.
/// Written by hand, since what nix has for it allocates for each datagram.
fn source(from: IpAddr) -> ([u8; SOURCE], usize) {
    let any = [0; 4];
    let (v4, v6);
    let (level, kind, info): (_, _, [&[u8]; 3]) = match from {
        // The interface, the address to leave from, and one that counts for what arrives.
        IpAddr::V4(ip) => {
            v4 = ip.octets();
            (libc::IPPROTO_IP, libc::IP_PKTINFO, [&any, &v4, &any])
        }
        // The address to leave from, the interface.
        IpAddr::V6(ip) => {
            v6 = ip.octets();
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, [&v6, &any, &[]])
        }
    };
    let length = HEADER + info.iter().map(|part| part.len()).sum::<usize>();
    let header = length.to_ne_bytes().into_iter();
    let header = header.chain(level.to_ne_bytes()).chain(kind.to_ne_bytes());
    let mut message = [0; SOURCE];
    let bytes = header.chain(info.into_iter().flatten().copied());
    for (to, from) in message.iter_mut().zip(bytes) {
        *to = from;
    }
    (message, length.next_multiple_of(size_of::<usize>()))
}

/// A control message's header: its length, level and type.
const HEADER: usize = size_of::<usize>() + 2 * size_of::<libc::c_int>();
/// Room for the longer of the two.
const SOURCE: usize = HEADER + 24;

/// How often a send is tried that fails with what may be another's failure.
const TRIES: usize = 4;

/// Sends one datagram without blocking, from one of our addresses if the socket has many.
pub(crate) fn send(
    socket: &Socket,
    peer: SocketAddr,
    from: Option<IpAddr>,
    bytes: &[u8],
) -> Result<(), SendError> {
    let mut tries = 0;
    loop {
        let Err(error) = socket.send_once(peer, from, bytes) else {
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
