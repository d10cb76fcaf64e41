//! How a user agent's bytes travel: a datagram socket or a connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::message::Message;

/// A socket to the proxy.
#[derive(Debug)]
pub enum Link {
    /// Datagrams; the address is where requests go.
    Udp {
        /// The socket.
        socket: UdpSocket,
        /// The proxy.
        proxy: SocketAddr,
        /// Where the last message came from.
        last: SocketAddr,
    },
    /// A connection with what was read of it so far.
    Tcp {
        /// The connection.
        stream: TcpStream,
        /// Bytes that are not a whole message yet.
        pending: Vec<u8>,
    },
}

impl Link {
    /// A datagram socket.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn udp(local: SocketAddr, proxy: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap_or_else(|error| panic!("udp {local}: {error}"));
        Self::Udp {
            socket,
            proxy,
            last: proxy,
        }
    }

    /// A connection from the local address, any port.
    ///
    /// # Panics
    /// When the proxy refuses it.
    #[must_use]
    pub fn tcp(local: std::net::IpAddr, proxy: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(proxy), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(local, 0).into()).unwrap();
        socket
            .connect_timeout(&proxy.into(), Duration::from_secs(5))
            .unwrap_or_else(|error| panic!("tcp {local} to {proxy}: {error}"));
        Self::accepted(socket.into())
    }

    fn accepted(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::Tcp {
            stream,
            pending: Vec::new(),
        }
    }

    /// Our own address.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        match self {
            Self::Udp { socket, .. } => socket.local_addr().unwrap(),
            Self::Tcp { stream, .. } => stream.local_addr().unwrap(),
        }
    }

    /// Where the last message came from.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn heard_from(&self) -> SocketAddr {
        match self {
            Self::Udp { last, .. } => *last,
            Self::Tcp { stream, .. } => stream.peer_addr().unwrap(),
        }
    }

    /// The word for Via.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Udp { .. } => "UDP",
            Self::Tcp { .. } => "TCP",
        }
    }

    /// Sends bytes to the proxy.
    ///
    /// # Panics
    /// When they do not go.
    pub fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp { socket, proxy, .. } => {
                socket.send_to(bytes, *proxy).unwrap();
            }
            Self::Tcp { stream, .. } => stream.write_all(bytes).unwrap(),
        }
    }

    /// Sends bytes to where the last message came from.
    ///
    /// # Panics
    /// When they do not go.
    pub fn answer(&mut self, bytes: &[u8]) {
        match self {
            Self::Udp { socket, last, .. } => {
                socket.send_to(bytes, *last).unwrap();
            }
            Self::Tcp { .. } => self.send(bytes),
        }
    }

    /// The next message, if one comes in time. Keep-alives are passed over.
    ///
    /// # Panics
    /// When the socket fails or the bytes are no message.
    pub fn receive(&mut self, limit: Duration) -> Option<Message> {
        let end = Instant::now() + limit;
        let mut buffer = vec![0; 65536];
        loop {
            if let Self::Tcp { pending, .. } = self {
                let blank = pending
                    .iter()
                    .take_while(|byte| matches!(byte, b'\r' | b'\n'))
                    .count();
                pending.drain(..blank);
                if let Some((message, length)) = Message::parse_stream(pending) {
                    pending.drain(..length);
                    return Some(message);
                }
            }
            let length = self.read_some(&mut buffer, end)?;
            match self {
                Self::Udp { .. } if length > 4 => return Some(Message::parse(&buffer[..length])),
                Self::Udp { .. } => {}
                Self::Tcp { pending, .. } => pending.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Reads bytes as they come; `None` at the deadline or the connection's end.
    ///
    /// # Panics
    /// When the socket fails.
    pub fn read_some(&mut self, buffer: &mut [u8], end: Instant) -> Option<usize> {
        let left = end
            .checked_duration_since(Instant::now())?
            .max(Duration::from_millis(1));
        let read = match self {
            Self::Udp { socket, last, .. } => {
                socket.set_read_timeout(Some(left)).unwrap();
                socket.recv_from(buffer).map(|(length, from)| {
                    *last = from;
                    length
                })
            }
            Self::Tcp { stream, .. } => {
                stream.set_read_timeout(Some(left)).unwrap();
                stream.read(buffer)
            }
        };
        match read {
            Ok(0) if matches!(self, Self::Tcp { .. }) => None,
            Ok(length) => Some(length),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{} on {}: {error}", self.protocol(), self.local()),
        }
    }

    /// Whether the peer has closed the connection by then.
    ///
    /// # Panics
    /// When it is a datagram socket.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        let Self::Tcp { stream, .. } = self else {
            panic!("a datagram socket does not close")
        };
        stream.set_read_timeout(Some(limit)).unwrap();
        match stream.read(&mut [0; 1024]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Accepts connections that the proxy opens.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens there.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn bind(local: SocketAddr) -> Self {
        let listener =
            TcpListener::bind(local).unwrap_or_else(|error| panic!("tcp {local}: {error}"));
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// The next connection, if one comes in time.
    ///
    /// # Panics
    /// When the socket fails.
    #[must_use]
    pub fn accept(&self, limit: Duration) -> Option<Link> {
        let end = Instant::now() + limit;
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Some(Link::accepted(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > end {
                        return None;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("accept: {error}"),
            }
        }
    }
}
