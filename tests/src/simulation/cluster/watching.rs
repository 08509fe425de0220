//! Clients that watch, and the members that tell them.

use rand::Rng;

use super::{Cluster, Event};

impl Cluster {
    /// A client reads what it was told, or opens its stream at a member that is up.
    pub(super) fn read_watches(&mut self, client: usize) {
        let next = self.watchers.next_reading(client, self.now);
        self.agenda.file(next, Event::Watch(client));
        let (now, calm) = (self.now, self.is_calm);
        let is_member =
            |id: u64| self.ledger.members().voters.contains(&id) || self.ledger.members().learners.contains(&id);
        let at = self.watchers.member_of(client).filter(|(id, _)| !calm || is_member(*id));
        if let Some((id, life)) = at
            && let Some(member) = self.members.get_mut(&id).filter(|member| member.life == life)
            && let Some(node) = member.awake(now)
        {
            if self.watchers.read(client, node, &self.ledger, calm) {
                self.watchers.leave(client, Some(node));
            }
            return member.look();
        }
        self.watchers.leave(client, None);
        let up = self.up();
        if up.is_empty() {
            return;
        }
        let id = up[self.random.random_range(0..up.len())];
        let session = if calm || !self.plan.users { self.accounts.root() } else { self.accounts.some() };
        let Some(asker) = self.asker(id, session) else { return };
        let member = self.members.get_mut(&id).expect("it is up");
        let life = member.life;
        let node = member.awake(now).expect("it is up");
        self.watchers.open(client, node, (id, life), &asker, &self.ledger);
        member.look();
    }
}
