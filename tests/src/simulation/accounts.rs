//! Users and who acts as them: they log in, somebody grants and takes away, and passwords change.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_proto::authpb::{Permission, permission};
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
};
use basalt_proto::log::request::Kind;
use basalt_server::auth::Caller;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::model::ModelAuth;
use crate::node_sim::Outcome;

/// The first may do everything.
const USERS: [&str; 4] = ["root", "ann", "bob", "eve"];
const ROOT: usize = 0;
const ROLES: [&str; 3] = ["reader", "writer", "other"];
/// What may be granted.
const RANGES: [(&[u8], &[u8]); 7] = [
    (b"/registry/", b"/registry0"),
    (b"/registry/pods/", b"/registry/pods0"),
    (b"/registry/pods/", b"/registry/pods/12"),
    (b"/registry/events/", b"/registry/events0"),
    (b"/registry/leases/05", b""),
    (b"/registry/leases/", &[0]),
    (&[0], &[0]),
];
/// Between two changes of users and roles, at most.
const PAUSE: Duration = Duration::from_millis(1200);
/// Whoever waits for a token begins anew then.
const GIVES_UP: Duration = Duration::from_secs(3);
const SECRET_LETTERS: usize = 16;

/// Numbers of reads that are theirs.
const READS: u64 = 1 << 61;

/// Whether a read is of this room.
pub fn is_of_account(read: u64) -> bool {
    read & READS != 0
}

/// Who asks for something.
#[derive(Clone, Debug)]
pub struct Asker {
    /// As the member knows it.
    pub caller: Caller,
    /// What it showed.
    pub token: Option<String>,
}

impl Asker {
    /// Nobody, or where nobody is asked.
    pub fn nobody() -> Self {
        Self { caller: Caller::Nobody, token: None }
    }

    /// The user.
    pub fn user(&self) -> Option<&str> {
        self.caller.name().map(|name| &**name)
    }
}

/// What a client waits for before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its member must apply more, to know its token.
    LooksAgain,
    /// Its member must apply what is acknowledged, to look at its password.
    LogsIn,
}

/// A client that waits for its member.
pub struct Waiting {
    member: u64,
    /// Who it is.
    pub session: usize,
    /// What for.
    pub wait: Wait,
    /// What it shows.
    pub token: Option<String>,
}

struct Session {
    token: Option<String>,
    /// Passwords that may be the user's.
    passwords: Vec<String>,
    /// Since when it waits for a token.
    waits: Option<Duration>,
}

struct Login {
    session: usize,
    member: u64,
    secret: String,
}

/// All of them.
pub struct Accounts {
    random: StdRng,
    sessions: Vec<Session>,
    reads: BTreeMap<u64, Waiting>,
    logins: BTreeMap<u64, Login>,
    numbers: u64,
    /// Tokens that were given out.
    pub logged_in: u64,
}

impl Accounts {
    /// Users of a seed, none of whom exists yet.
    pub fn new(seed: u64) -> Self {
        let session = |_| Session { token: None, passwords: Vec::new(), waits: None };
        Self {
            random: StdRng::seed_from_u64(seed ^ 0x0a77),
            sessions: USERS.iter().map(session).collect(),
            reads: BTreeMap::new(),
            logins: BTreeMap::new(),
            numbers: 0,
            logged_in: 0,
        }
    }

    /// Who may do everything.
    pub fn root(&self) -> usize {
        ROOT
    }

    /// The name of a user.
    pub fn name(&self, session: usize) -> &'static str {
        USERS[session]
    }

    /// Some user, half of the time root.
    pub fn some(&mut self) -> usize {
        if self.random.random() { ROOT } else { self.random.random_range(0..USERS.len()) }
    }

    /// Whether something comes true that does so once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.random.random_ratio(1, times)
    }

    /// What a user shows.
    pub fn token(&self, session: usize) -> Option<&str> {
        self.sessions[session].token.as_deref()
    }

    /// A member did not know the token.
    pub fn forget_token(&mut self, session: usize) {
        self.sessions[session].token = None;
    }

    /// A user waits at a member; gives the number of the read, unless it waits already.
    pub fn begin(&mut self, session: usize, member: u64, wait: Wait, now: Duration) -> Option<u64> {
        let waits = &mut self.sessions[session].waits;
        if waits.is_some_and(|since| now < since + GIVES_UP) {
            return None;
        }
        *waits = Some(now);
        self.numbers += 1;
        let token = self.sessions[session].token.clone();
        self.reads.insert(READS | self.numbers, Waiting { member, session, wait, token });
        Some(READS | self.numbers)
    }

    /// A read is over: who waited for it, and for what.
    pub fn take_read(&mut self, read: u64) -> Option<Waiting> {
        self.reads.remove(&read)
    }

    /// A user waits no more.
    pub fn ends(&mut self, session: usize) {
        self.sessions[session].waits = None;
    }

    /// Whether a user knows its password by its hash: it tries all that may be.
    pub fn has_password(&self, session: usize, hash: &[u8]) -> bool {
        self.sessions[session].passwords.iter().any(|password| password.as_bytes() == hash)
    }

    /// A new token's digest.
    pub fn secret(&mut self) -> (String, Vec<u8>) {
        let letter = |_| char::from(self.random.random_range(b'a'..=b'z'));
        let secret: String = (0..SECRET_LETTERS).map(letter).collect();
        let digest = Sha256::digest(&secret).to_vec();
        (secret, digest)
    }

    /// A login is on its way as this request.
    pub fn asks(&mut self, request: u64, session: usize, member: u64, secret: String, now: Duration) {
        self.sessions[session].waits = Some(now);
        self.logins.insert(request, Login { session, member, secret });
    }

    /// Logins at a member are answered.
    pub fn hear_outcomes(&mut self, member: u64, outcomes: &[Outcome]) {
        let own = outcomes.iter().filter(|one| one.entry.as_ref().is_some_and(|entry| entry.proposer == member));
        for outcome in own {
            for (request, answer) in &outcome.answers {
                let Some(login) = self.logins.remove(request) else { continue };
                let session = &mut self.sessions[login.session];
                session.waits = None;
                if answer.is_ok() {
                    session.token = Some(format!("{}.{}", login.secret, outcome.position.index));
                    self.logged_in += 1;
                }
            }
        }
    }

    /// A member is gone: who waited there begins anew.
    pub fn forget(&mut self, member: u64) {
        let reads = self.reads.values().filter(|waiting| waiting.member == member).map(|waiting| waiting.session);
        let logins = self.logins.values().filter(|login| login.member == member).map(|login| login.session);
        for session in reads.chain(logins).collect::<Vec<_>>() {
            self.sessions[session].waits = None;
        }
        self.reads.retain(|_, waiting| waiting.member != member);
        self.logins.retain(|_, login| login.member != member);
    }

    /// A pause until the next change of users and roles.
    pub fn pause(&mut self) -> Duration {
        PAUSE.mul_f64(self.random.random())
    }

    /// A change of users and roles: mostly one that can be made.
    pub fn draw_change(&mut self, auth: &ModelAuth) -> Kind {
        if !auth.enabled
            && let Some(step) = self.step_to_enabling(auth)
        {
            return step;
        }
        let user = if self.once_in(8) { USERS[ROOT] } else { USERS[self.random.random_range(1..USERS.len())] };
        let role = ROLES[self.random.random_range(0..ROLES.len())];
        let (user, role) = (user.to_owned(), role.to_owned());
        if user != USERS[ROOT] && !auth.users.contains_key(&user) && !self.once_in(4) {
            return self.add_user(&user);
        }
        if !auth.roles.contains_key(&role) && !self.once_in(4) {
            return Kind::RoleAdd(AuthRoleAddRequest { name: role });
        }
        let wide = if self.once_in(6) { USERS[ROOT].to_owned() } else { role.clone() };
        match self.random.random_range(0..100) {
            0..25 => Kind::UserGrantRole(AuthUserGrantRoleRequest { user, role: wide }),
            25..40 => Kind::UserRevokeRole(AuthUserRevokeRoleRequest { name: user, role: self.role_of(auth, &role) }),
            40..62 => self.grant(role),
            62..77 => self.revoke(auth, role),
            77..84 => self.change_password(&user),
            84..89 => Kind::UserDelete(AuthUserDeleteRequest { name: user }),
            89..92 => Kind::RoleDelete(AuthRoleDeleteRequest { role }),
            92..94 => self.add_user(&user),
            94..97 => Kind::AuthEnable(AuthEnableRequest {}),
            _ => Kind::AuthDisable(AuthDisableRequest {}),
        }
    }

    /// Root and its role come first, and soon after authentication is turned on.
    fn step_to_enabling(&mut self, auth: &ModelAuth) -> Option<Kind> {
        let root = USERS[ROOT].to_owned();
        if !auth.users.contains_key(&root) {
            return Some(self.add_user(&root));
        }
        if !auth.has_role(&root, &root) {
            return Some(Kind::UserGrantRole(AuthUserGrantRoleRequest { user: root.clone(), role: root }));
        }
        self.once_in(3).then_some(Kind::AuthEnable(AuthEnableRequest {}))
    }

    /// A role that somebody has, mostly.
    fn role_of(&mut self, auth: &ModelAuth, role: &str) -> String {
        let roles: Vec<&String> = auth.users.values().flat_map(|user| &user.roles).collect();
        let some = roles.choose(&mut self.random).filter(|_| !self.random.random_ratio(1, 4));
        some.map_or(role, |role| role.as_str()).to_owned()
    }

    fn add_user(&mut self, user: &str) -> Kind {
        let hashed_password = self.draw_password(user);
        Kind::UserAdd(AuthUserAddRequest { name: user.to_owned(), hashed_password, ..Default::default() })
    }

    fn change_password(&mut self, user: &str) -> Kind {
        let hashed_password = self.draw_password(user);
        let name = user.to_owned();
        Kind::UserChangePassword(AuthUserChangePasswordRequest { name, hashed_password, ..Default::default() })
    }

    /// No two are equal, as no two hashes are. It is the user's if the request comes through, which nobody may ever hear.
    fn draw_password(&mut self, user: &str) -> String {
        self.numbers += 1;
        let password = format!("password {}", self.numbers);
        let hashed = STANDARD.encode(&password);
        let of_user = USERS.iter().position(|name| *name == user).expect("a user");
        self.sessions[of_user].passwords.push(password);
        hashed
    }

    fn grant(&mut self, name: String) -> Kind {
        let (key, range_end) = *RANGES.choose(&mut self.random).expect("there are some");
        let kinds = [permission::Type::Read, permission::Type::Write, permission::Type::Readwrite];
        let perm_type = *kinds.choose(&mut self.random).expect("there are some") as i32;
        let perm = Permission { perm_type, key: key.to_vec().into(), range_end: range_end.to_vec().into() };
        Kind::RoleGrantPermission(AuthRoleGrantPermissionRequest { name, perm: Some(perm) })
    }

    fn revoke(&mut self, auth: &ModelAuth, role: String) -> Kind {
        let granted: Vec<_> = auth.roles.get(&role).into_iter().flatten().map(|(range, _)| range).collect();
        let (key, range_end) = match granted.choose(&mut self.random) {
            Some((key, range_end)) => (key.clone(), range_end.clone()),
            None => (RANGES[0].0.to_vec(), RANGES[0].1.to_vec()),
        };
        let (key, range_end) = (key.into(), range_end.into());
        Kind::RoleRevokePermission(AuthRoleRevokePermissionRequest { role, key, range_end })
    }
}
