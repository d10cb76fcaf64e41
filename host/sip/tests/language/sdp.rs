//! SDP: sections, addresses, ports, attributes and where they stand.

use sipbox_sip::sdp::Sdp;

use super::lines;

#[test]
fn sections_and_their_lines() {
    let body = lines(
        "v=0
        o=- 1 1 IN IP4 192.0.2.1
        c=IN IP4 192.0.2.1/127
        a=sendrecv
        not a line
        m=audio 49170/2 RTP/AVP 0 8
        c=IN IP6 2001:db8::1
        a=rtpmap:0 PCMU/8000
        a=ptime:20
        m=video 0 RTP/AVP 31
        m=broken x",
    );
    let sdp = Sdp::new(&body);
    let session = sdp.session();
    let connection = session.connections().next().unwrap();
    assert_eq!(connection.ip(), Some("192.0.2.1".parse().unwrap()));
    assert_eq!(connection.span.of(&body), b"192.0.2.1");
    assert!(session.attribute(b"sendrecv").unwrap().value.is_none());
    assert!(session.attribute(b"ptime").is_none());

    let media: Vec<_> = sdp.media().collect();
    assert_eq!(media.len(), 3);
    let audio = media[0].media().unwrap();
    assert_eq!(
        (audio.media, audio.port, audio.proto),
        (&b"audio"[..], 49170, &b"RTP/AVP"[..])
    );
    assert_eq!(
        (audio.formats, audio.port_span.of(&body)),
        (&b"0 8"[..], &b"49170"[..])
    );
    assert_eq!(
        media[0].connections().next().unwrap().address,
        b"2001:db8::1"
    );
    assert_eq!(
        media[0].attribute(b"rtpmap").unwrap().value,
        Some(&b"0 PCMU/8000"[..])
    );
    let line = media[0].attribute(b"ptime").unwrap().line;
    assert_eq!(line.line.of(&body), b"a=ptime:20\r\n");
    assert_eq!(
        (
            media[1].media().unwrap().port,
            media[1].connections().count()
        ),
        (0, 0)
    );
    assert!(media[2].media().is_none());
    assert_eq!(sdp.lines().count(), 10);
}

#[test]
fn an_empty_body_has_no_sections() {
    let sdp = Sdp::new(b"");
    assert_eq!((sdp.lines().count(), sdp.media().count()), (0, 0));
    assert_eq!(sdp.session().lines().count(), 0);
}
