//! Paths: the pairs of addresses of a connection. DRBD 9 only; in 8.4 a connection is its addresses.

use crate::{Address, Command, Dialect, Drbd, Error, Peer, nest::nest};

nest! {
    /// `PATH_PARMS` (28).
    PathParms {
        /// Our end.
        1 my_addr: Address,
        /// The peer's end.
        2 peer_addr: Address,
    }
}

nest! {
    /// `PATH_INFO` (30).
    PathInfo {
        /// The path is in use.
        1 path_established: bool,
    }
}

impl Drbd {
    /// Gives the connection to `peer` its addresses as a path.
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4; [`crate::Refusal::AddressPairInUse`], [`crate::Refusal::PathCollision`].
    pub fn new_path(&mut self, peer: &Peer) -> Result<(), Error> {
        self.path(Command::NEW_PATH, peer)
    }

    /// Takes the path with the addresses of `peer` away.
    ///
    /// # Errors
    ///
    /// [`Error::NotInDialect`] on 8.4; refused for the last path of a live connection.
    pub fn del_path(&mut self, peer: &Peer) -> Result<(), Error> {
        self.path(Command::DEL_PATH, peer)
    }

    fn path(&mut self, command: Command, peer: &Peer) -> Result<(), Error> {
        self.only_in(Dialect::V9, command)?;
        let mut request = self.of_connection(command, peer)?;
        request.contents.path_parms = Some(PathParms {
            my_addr: Some(peer.my_addr.clone()),
            peer_addr: Some(peer.peer_addr.clone()),
            ..PathParms::default()
        });
        self.command(&request)
    }
}
