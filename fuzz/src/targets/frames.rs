//! Frames, one behind the other, as [`bascule::transport::Channel`] reads them from a connection: what is understood is written and
//! understood the same way again, and no length is believed beyond the limit.

use bascule::protocol::{self, HEADER_LEN, Header, Message, PAYLOAD_MAX};

pub(crate) fn run(mut bytes: &[u8]) {
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let Ok(header) = Header::parse(*header) else { return };
        assert!(header.len <= PAYLOAD_MAX && header.kind != 0);
        let Some((payload, rest)) = rest.split_at_checked(header.len) else { return };
        let Ok(message) = protocol::decode(header, payload) else { return };
        assert_eq!(message.kind(), header.kind);
        assert_eq!(again(&message), message);
        bytes = rest;
    }
}

fn again(message: &Message) -> Message {
    let frame = protocol::encode(message).expect("what could be read can be written");
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().expect("a frame has a header");
    let header = Header::parse(*header).expect("our header");
    assert_eq!(header.len, payload.len());
    protocol::decode(header, payload).expect("our payload")
}
