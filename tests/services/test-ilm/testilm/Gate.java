package testilm;

import java.util.List;
import org.elasticsearch.action.*;
import org.elasticsearch.action.support.*;
import org.elasticsearch.action.support.master.AcknowledgedResponse;
import org.elasticsearch.common.util.concurrent.EsExecutors;
import org.elasticsearch.injection.guice.Inject;
import org.elasticsearch.plugins.ActionPlugin;
import org.elasticsearch.tasks.Task;
import org.elasticsearch.transport.TransportService;

/** Actions that do nothing, under the names of Elastic's own, so that security asks for the privilege of each as it really does. */
class Gate {
    static final ActionType<AcknowledgedResponse>
        PUT = new ActionType<>("cluster:admin/ilm/put"),
        GET = new ActionType<>("cluster:admin/ilm/get"),
        DELETE = new ActionType<>("cluster:admin/ilm/delete"),
        STATUS = new ActionType<>("cluster:admin/ilm/operation_mode/get"),
        START = new ActionType<>("cluster:admin/ilm/start"),
        STOP = new ActionType<>("cluster:admin/ilm/stop"),
        EXPLAIN = new ActionType<>("indices:admin/ilm/explain"),
        RETRY = new ActionType<>("indices:admin/ilm/retry"),
        DS_GET = new ActionType<>("indices:admin/data_stream/get"),
        DS_CREATE = new ActionType<>("indices:admin/data_stream/modify"), // a request of its own class belongs to `create`, and `manage` has both
        MAIN = new ActionType<>("cluster:monitor/main");

    static class Request extends LegacyActionRequest implements IndicesRequest.Replaceable {
        private String[] indices;
        Request(String... indices) { this.indices = indices; }
        @Override public String[] indices() { return indices; }
        @Override public IndicesRequest indices(String... names) { indices = names; return this; }
        @Override public IndicesOptions indicesOptions() { return IndicesOptions.lenientExpandOpen(); }
        @Override public boolean includeDataStreams() { return true; }
        @Override public ActionRequestValidationException validate() { return null; }
    }

    static abstract class Open extends TransportAction<Request, AcknowledgedResponse> {
        Open(ActionType<AcknowledgedResponse> type, TransportService t, ActionFilters f) { super(type.name(), f, t.getTaskManager(), EsExecutors.DIRECT_EXECUTOR_SERVICE); }
        @Override protected void doExecute(Task task, Request r, ActionListener<AcknowledgedResponse> l) { l.onResponse(AcknowledgedResponse.TRUE); }
    }
    public static class Put extends Open { @Inject public Put(TransportService t, ActionFilters f) { super(PUT, t, f); } }
    public static class Get extends Open { @Inject public Get(TransportService t, ActionFilters f) { super(GET, t, f); } }
    public static class Delete extends Open { @Inject public Delete(TransportService t, ActionFilters f) { super(DELETE, t, f); } }
    public static class Status extends Open { @Inject public Status(TransportService t, ActionFilters f) { super(STATUS, t, f); } }
    public static class Start extends Open { @Inject public Start(TransportService t, ActionFilters f) { super(START, t, f); } }
    public static class Stop extends Open { @Inject public Stop(TransportService t, ActionFilters f) { super(STOP, t, f); } }
    public static class Explain extends Open { @Inject public Explain(TransportService t, ActionFilters f) { super(EXPLAIN, t, f); } }
    public static class Retry extends Open { @Inject public Retry(TransportService t, ActionFilters f) { super(RETRY, t, f); } }
    public static class DsGet extends Open { @Inject public DsGet(TransportService t, ActionFilters f) { super(DS_GET, t, f); } }
    public static class DsCreate extends Open { @Inject public DsCreate(TransportService t, ActionFilters f) { super(DS_CREATE, t, f); } }
    public static class Main extends Open { @Inject public Main(TransportService t, ActionFilters f) { super(MAIN, t, f); } }

    static List<ActionPlugin.ActionHandler> actions() {
        return List.of(
            new ActionPlugin.ActionHandler(PUT, Put.class),
            new ActionPlugin.ActionHandler(GET, Get.class),
            new ActionPlugin.ActionHandler(DELETE, Delete.class),
            new ActionPlugin.ActionHandler(STATUS, Status.class),
            new ActionPlugin.ActionHandler(START, Start.class),
            new ActionPlugin.ActionHandler(STOP, Stop.class),
            new ActionPlugin.ActionHandler(EXPLAIN, Explain.class),
            new ActionPlugin.ActionHandler(RETRY, Retry.class),
            new ActionPlugin.ActionHandler(DS_GET, DsGet.class),
            new ActionPlugin.ActionHandler(DS_CREATE, DsCreate.class),
            new ActionPlugin.ActionHandler(MAIN, Main.class));
    }
}
