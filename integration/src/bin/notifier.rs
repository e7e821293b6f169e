//! `notifier MESSAGE...`: what sd_notify(3) does. A container's program sends datagrams to its `NOTIFY_SOCKET`.

fn main() {
    let path = std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    for message in std::env::args().skip(1) {
        socket.send_to(message.as_bytes(), &path).expect("a reader");
    }
}
