import static java.nio.charset.StandardCharsets.UTF_8;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.auth.Permission;
import io.etcd.jetcd.election.CampaignResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.CompactOption;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What an application does with jetcd. Prints what it sees, which is to be the same from every server. */
public final class Transcript {
    private static final long WAIT_SECONDS = 60;

    public static void main(String[] args) throws Exception {
        try (Client client = Client.builder().endpoints(args[0]).build()) {
            keys(client);
            transactions(client);
            watches(client);
            leases(client);
            locks(client);
            elections(client);
            maintenance(client);
            authentication(client, args[0]);
        }
        System.exit(0); // its event loops hold the process for some time
    }

    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text, UTF_8);
    }

    private static <T> T get(CompletableFuture<T> future) throws Exception {
        return future.get(WAIT_SECONDS, TimeUnit.SECONDS);
    }

    private static void show(String what, Object... values) {
        System.out.println(what + " " + List.of(values));
    }

    private static String text(KeyValue kv) {
        return kv.getKey() + "=" + kv.getValue() + " " + kv.getCreateRevision() + " " + kv.getModRevision() + " " + kv.getVersion();
    }

    private static List<String> texts(List<KeyValue> kvs) {
        return kvs.stream().map(Transcript::text).toList();
    }

    private static void keys(Client client) throws Exception {
        var kv = client.getKVClient();
        get(kv.put(bytes("a"), bytes("1")));
        var before = get(kv.put(bytes("a"), bytes("2"), PutOption.builder().withPrevKV().build()));
        show("put", text(before.getPrevKv()), before.getHeader().getRevision());
        for (int n = 0; n < 5; n++) {
            get(kv.put(bytes("p/" + n), bytes("" + (5 - n))));
        }
        show("get", texts(get(kv.get(bytes("a"))).getKvs()), texts(get(kv.get(bytes("absent"))).getKvs()));
        var prefix = GetOption.builder().isPrefix(true);
        show("prefix", texts(get(kv.get(bytes("p/"), prefix.build())).getKvs()));
        var page = get(kv.get(bytes("p/"), prefix.withLimit(2).withSortField(GetOption.SortTarget.VALUE)
            .withSortOrder(GetOption.SortOrder.ASCEND).build()));
        show("page", texts(page.getKvs()), page.isMore(), page.getCount());
        show("count", get(kv.get(bytes("p/"), GetOption.builder().isPrefix(true).withCountOnly(true).build())).getCount());
        show("past", texts(get(kv.get(bytes("a"), GetOption.builder().withRevision(2).build())).getKvs()));
        var deleted = get(kv.delete(bytes("p/"), DeleteOption.builder().isPrefix(true).withPrevKV(true).build()));
        show("delete", deleted.getDeleted(), texts(deleted.getPrevKvs()));
        try {
            get(kv.get(bytes("a"), GetOption.builder().withRevision(1000).build()));
        } catch (ExecutionException failed) {
            show("future", failed.getCause().getMessage());
        }
    }

    private static void transactions(Client client) throws Exception {
        var kv = client.getKVClient();
        TxnResponse done = get(kv.txn()
            .If(new Cmp(bytes("a"), Cmp.Op.EQUAL, CmpTarget.value(bytes("2"))),
                new Cmp(bytes("none"), Cmp.Op.EQUAL, CmpTarget.version(0)))
            .Then(Op.put(bytes("t"), bytes("1"), PutOption.DEFAULT), Op.get(bytes("a"), GetOption.DEFAULT))
            .Else(Op.put(bytes("never"), bytes("x"), PutOption.DEFAULT)).commit());
        show("txn", done.isSucceeded(), texts(done.getGetResponses().get(0).getKvs()));
        done = get(kv.txn().If(new Cmp(bytes("a"), Cmp.Op.GREATER, CmpTarget.modRevision(500)))
            .Then(Op.delete(bytes("a"), DeleteOption.DEFAULT)).Else(Op.delete(bytes("t"), DeleteOption.DEFAULT)).commit());
        show("else", done.isSucceeded(), done.getDeleteResponses().get(0).getDeleted());
    }

    private static void watches(Client client) throws Exception {
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        var created = new CountDownLatch(1);
        var option = WatchOption.builder().isPrefix(true).withPrevKV(true).withCreateNotify(true).build();
        try (Watch.Watcher watcher = client.getWatchClient().watch(bytes("w/"), option, answer -> {
            if (answer.isCreatedNotify()) {
                created.countDown();
            }
            events.addAll(answer.getEvents());
        })) {
            show("watch", created.await(WAIT_SECONDS, TimeUnit.SECONDS));
            get(client.getKVClient().put(bytes("w/a"), bytes("1")));
            get(client.getKVClient().put(bytes("w/a"), bytes("2")));
            get(client.getKVClient().delete(bytes("w/a")));
            for (int n = 0; n < 3; n++) {
                var event = events.poll(WAIT_SECONDS, TimeUnit.SECONDS);
                show("event", event.getEventType(), text(event.getKeyValue()), text(event.getPrevKV()));
            }
        }
    }

    private static void leases(Client client) throws Exception {
        var leases = client.getLeaseClient();
        long id = get(leases.grant(600)).getID();
        get(client.getKVClient().put(bytes("l/a"), bytes("1"), PutOption.builder().withLeaseId(id).build()));
        var life = get(leases.timeToLive(id, LeaseOption.builder().withAttachedKeys().build()));
        show("lease", life.getGrantedTTL(), life.getKeys());
        show("once", get(leases.keepAliveOnce(id)).getTTL());
        var alive = new CompletableFuture<Long>();
        var keeping = leases.keepAlive(id, new StreamObserver<LeaseKeepAliveResponse>() {
            @Override
            public void onNext(LeaseKeepAliveResponse answer) {
                alive.complete(answer.getTTL());
            }

            @Override
            public void onError(Throwable failed) {
                alive.completeExceptionally(failed);
            }

            @Override
            public void onCompleted() {
                alive.completeExceptionally(new IllegalStateException("the stream has ended"));
            }
        });
        show("keep alive", get(alive));
        keeping.close();
        get(leases.revoke(id));
        show("revoked", texts(get(client.getKVClient().get(bytes("l/a"))).getKvs()));
    }

    private static void locks(Client client) throws Exception {
        long first = get(client.getLeaseClient().grant(600)).getID();
        long second = get(client.getLeaseClient().grant(600)).getID();
        var held = get(client.getLockClient().lock(bytes("mutex"), first)).getKey();
        show("lock", held.toString().equals("mutex/" + Long.toHexString(first)));
        var waiting = client.getLockClient().lock(bytes("mutex"), second);
        show("waits", !waiting.isDone());
        get(client.getLockClient().unlock(held));
        get(client.getLockClient().unlock(get(waiting).getKey()));
        show("unlocked", get(client.getKVClient().get(bytes("mutex/"), GetOption.builder().isPrefix(true).build())).getCount());
    }

    private static void elections(Client client) throws Exception {
        var elections = client.getElectionClient();
        long id = get(client.getLeaseClient().grant(600)).getID();
        CampaignResponse won = get(elections.campaign(bytes("chair"), id, bytes("anna")));
        show("leader", get(elections.leader(bytes("chair"))).getKv().getValue());
        get(elections.proclaim(won.getLeader(), bytes("anna again")));
        show("proclaimed", get(elections.leader(bytes("chair"))).getKv().getValue());
        get(elections.resign(won.getLeader()));
        try {
            get(elections.leader(bytes("chair")));
        } catch (ExecutionException failed) {
            show("nobody", failed.getCause().getClass().getSimpleName());
        }
    }

    private static void maintenance(Client client) throws Exception {
        var maintenance = client.getMaintenanceClient();
        var members = get(client.getClusterClient().listMember()).getMembers();
        show("members", members.size(), members.get(0).getName());
        show("alarms", get(maintenance.listAlarms()).getAlarms());
        var endpoint = members.get(0).getClientURIs().get(0).toString();
        show("status", get(maintenance.statusMember(endpoint)).getVersion());
        long revision = get(client.getKVClient().get(bytes("a"))).getHeader().getRevision();
        get(client.getKVClient().compact(revision, CompactOption.builder().withCompactPhysical(true).build()));
        get(maintenance.defragmentMember(endpoint));
        show("hash", get(maintenance.hashKV(endpoint, 0)).getCompacted() == revision);
        var snapshot = new ByteArrayOutputStream();
        get(maintenance.snapshot(snapshot));
        show("snapshot", snapshot.size() > 10_000);
    }

    private static void authentication(Client client, String endpoint) throws Exception {
        var auth = client.getAuthClient();
        get(auth.userAdd(bytes("root"), bytes("secret")));
        get(auth.roleAdd(bytes("root")));
        get(auth.userGrantRole(bytes("root"), bytes("root")));
        get(auth.userAdd(bytes("ann"), bytes("word")));
        get(auth.roleAdd(bytes("reader")));
        get(auth.roleGrantPermission(bytes("reader"), bytes("a"), bytes("b"), Permission.Type.READ));
        get(auth.userGrantRole(bytes("ann"), bytes("reader")));
        show("user", get(auth.userGet(bytes("ann"))).getRoles(), get(auth.userList()).getUsers());
        get(auth.authEnable());
        try (Client ann = as(endpoint, "ann", "word"); Client root = as(endpoint, "root", "secret")) {
            show("as ann", get(ann.getKVClient().get(bytes("a"))).getCount());
            refused("write as ann", ann.getKVClient().put(bytes("a"), bytes("1")));
            refused("another key as ann", ann.getKVClient().get(bytes("z")));
            refused("as nobody", client.getKVClient().get(bytes("a")));
            get(root.getKVClient().put(bytes("z"), bytes("1")));
            get(root.getAuthClient().authDisable());
        }
        show("again", get(client.getKVClient().get(bytes("z"))).getCount());
    }

    private static Client as(String endpoint, String user, String password) {
        return Client.builder().endpoints(URI.create(endpoint)).user(bytes(user)).password(bytes(password)).build();
    }

    private static void refused(String what, CompletableFuture<?> future) throws Exception {
        try {
            get(future);
            show(what, "done");
        } catch (ExecutionException failed) {
            show(what, failed.getCause().getMessage());
        }
    }
}
