//! Clients that are users: they come to be known, ask, and change who may do what.

use basalt_proto::log::Authentication;
use basalt_proto::log::request::Kind;
use basalt_server::auth::{Caller, Identified};

use super::super::accounts::{Asker, Wait, Waiting};
use super::super::invariants::permissions;
use super::{Cluster, Event};

/// Of requests of those who have no token, one in so many is made nevertheless.
const ASKS_IN_VAIN: u32 = 8;
/// Of changes of users and roles, one in so many is asked for by anybody.
const BY_ANYBODY: u32 = 8;

impl Cluster {
    /// As whom a user asks at a member that is up; `None` while it is to become known there.
    pub(super) fn asker(&mut self, id: u64, session: usize) -> Option<Asker> {
        if !self.plan.users {
            return Some(Asker::nobody());
        }
        let now = self.now;
        let node = self.members.get_mut(&id).expect("there").awake(now).expect("it is up");
        let token = self.accounts.token(session).map(str::to_owned);
        let identified = node.identify(token.as_deref());
        let is_asked = node.shown_auth().is_enabled();
        match identified {
            Identified::Later => self.wait(id, session, Wait::LooksAgain),
            Identified::Caller(Caller::Stranger) => {
                self.report.count("unknown tokens", 1);
                self.accounts.forget_token(session);
                self.wait(id, session, Wait::LogsIn);
            }
            Identified::Caller(Caller::Nobody) if is_asked && !self.accounts.once_in(ASKS_IN_VAIN) => {
                self.wait(id, session, Wait::LogsIn);
            }
            Identified::Caller(caller) => {
                let asker = Asker { caller, token };
                if asker.user().is_some() {
                    permissions::known(id, node, &asker, &self.ledger);
                }
                return Some(asker);
            }
        }
        None
    }

    /// A user waits until its member has applied what is acknowledged.
    fn wait(&mut self, id: u64, session: usize, wait: Wait) {
        let now = self.now;
        let Some(read) = self.accounts.begin(session, id, wait, now) else { return };
        let member = self.members.get_mut(&id).expect("there");
        member.awake(now).expect("it is up").read_index(read);
        member.look();
    }

    /// Members have applied what users waited for, or cannot say.
    pub(super) fn hear_account_reads(&mut self, id: u64, ready: &[u64], failed: &[u64]) {
        for read in failed {
            let waiting = self.accounts.take_read(*read).expect("it waits");
            self.accounts.ends(waiting.session);
        }
        for read in ready {
            let Waiting { session, wait, token, .. } = self.accounts.take_read(*read).expect("it waits");
            self.accounts.ends(session);
            match wait {
                Wait::LogsIn => self.log_in(id, session),
                Wait::LooksAgain => self.look_again(id, session, token),
            }
        }
    }

    /// What was acknowledged is applied here: the token too, if it is one.
    fn look_again(&mut self, id: u64, session: usize, token: Option<String>) {
        // It may have another one by now.
        let Some(token) = token.filter(|token| self.accounts.token(session) == Some(token)) else { return };
        let node = self.members[&id].node.as_ref().expect("it spoke just now");
        match node.identify(Some(&token)) {
            Identified::Later => panic!("I7: {token} is not applied at {id:x}, which was to have what is acknowledged"),
            Identified::Caller(Caller::Stranger) => self.accounts.forget_token(session),
            Identified::Caller(_) => {}
        }
    }

    /// A user shows its password, which is looked at by the newest users there.
    fn log_in(&mut self, id: u64, session: usize) {
        let now = self.now;
        let member = self.members.get_mut(&id).expect("there");
        let life = member.life;
        let node = member.node.as_mut().expect("it spoke just now");
        let auth = node.shown_auth();
        let user = self.accounts.name(session).to_owned();
        let hash = auth.user(&user).map(|user| user.password.clone());
        let is_right = hash.is_some_and(|hash| self.accounts.has_password(session, &hash));
        if !auth.is_enabled() || !is_right {
            return;
        }
        let (secret, digest) = self.accounts.secret();
        let login = Authentication { user, secret_digest: digest.into(), auth_revision: auth.revision() };
        let request = self.clients.order(node, (id, life), (Kind::Authentication(login), None), now);
        self.ledger.sent(&request);
        self.accounts.asks(request.id, session, id, secret, now);
        member.look();
    }

    /// Somebody changes who may do what.
    pub(super) fn administer(&mut self) {
        self.agenda.file(self.now + self.accounts.pause(), Event::Administer);
        let by = if self.accounts.once_in(BY_ANYBODY) { self.accounts.some() } else { self.accounts.root() };
        let kind = self.accounts.draw_change(&self.ledger.model().auth);
        if let Some(id) = self.some_up() {
            self.order_as(id, by, kind);
        }
    }

    /// Somebody has this ordered at a member that is up, if it may ask for it.
    pub(super) fn order_as(&mut self, id: u64, session: usize, kind: Kind) {
        let Some(asker) = self.asker(id, session) else { return };
        let now = self.now;
        let member = self.members.get_mut(&id).expect("it is up");
        let life = member.life;
        let node = member.awake(now).expect("it is up");
        let Ok(principal) = permissions::principal(node, &asker, &kind, &self.ledger) else {
            return self.report.count("refused before the log", 1);
        };
        let request = self.clients.order(node, (id, life), (kind, principal), now);
        self.ledger.sent(&request);
        member.look();
    }
}
