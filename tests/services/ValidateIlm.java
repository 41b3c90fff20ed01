import java.nio.file.*;
import java.util.*;
import org.elasticsearch.common.io.stream.NamedWriteableRegistry;
import org.elasticsearch.xcontent.*;
import org.elasticsearch.xcontent.json.JsonXContent;
import org.elasticsearch.xpack.core.ilm.*;
import org.elasticsearch.xpack.core.ilm.action.PutLifecycleRequest;
import org.elasticsearch.core.TimeValue;

/** Checks lifecycle policies, each in a file of its own, with Elasticsearch's own parser and validation, and lists their steps. */
public class ValidateIlm {
    static <T extends LifecycleAction> NamedXContentRegistry.Entry a(String name, ContextParser<Object, T> p) {
        return new NamedXContentRegistry.Entry(LifecycleAction.class, new ParseField(name), (parser, ctx) -> p.parse(parser, ctx));
    }
    public static void main(String[] args) throws Exception {
        org.elasticsearch.common.logging.LogConfigurator.configureESLogging();
        List<NamedXContentRegistry.Entry> e = new ArrayList<>();
        e.add(new NamedXContentRegistry.Entry(LifecycleType.class, new ParseField(TimeseriesLifecycleType.TYPE), p -> TimeseriesLifecycleType.INSTANCE));
        e.add(a(RolloverAction.NAME, (p, c) -> RolloverAction.parse(p)));
        e.add(a(ForceMergeAction.NAME, (p, c) -> ForceMergeAction.parse(p)));
        e.add(a(ReadOnlyAction.NAME, (p, c) -> ReadOnlyAction.parse(p)));
        e.add(a(ShrinkAction.NAME, (p, c) -> ShrinkAction.parse(p)));
        e.add(a(AllocateAction.NAME, (p, c) -> AllocateAction.parse(p)));
        e.add(a(MigrateAction.NAME, (p, c) -> MigrateAction.parse(p)));
        e.add(a(SetPriorityAction.NAME, (p, c) -> SetPriorityAction.parse(p)));
        e.add(a(DeleteAction.NAME, (p, c) -> DeleteAction.parse(p)));
        e.add(a(UnfollowAction.NAME, (p, c) -> UnfollowAction.parse(p)));
        e.add(a(WaitForSnapshotAction.NAME, (p, c) -> WaitForSnapshotAction.parse(p)));
        e.add(a(SearchableSnapshotAction.NAME, (p, c) -> SearchableSnapshotAction.parse(p)));
        e.add(a(DownsampleAction.NAME, (p, c) -> DownsampleAction.parse(p)));
        NamedXContentRegistry reg = new NamedXContentRegistry(e);
        int bad = 0;
        for (String f : args) {
            String name = Path.of(f).getFileName().toString().replaceFirst("\\.json$", "");
            try (XContentParser p = JsonXContent.jsonXContent.createParser(XContentParserConfiguration.EMPTY.withRegistry(reg), Files.readString(Path.of(f)))) {
                PutLifecycleRequest r = PutLifecycleRequest.parseRequest(new PutLifecycleRequest.Factory() {
                    public PutLifecycleRequest create(LifecyclePolicy pol) { return new PutLifecycleRequest(TimeValue.ONE_MINUTE, TimeValue.ONE_MINUTE, pol); }
                    public String getPolicyName() { return name; }
                }, p);
                var v = r.validate();
                if (v != null) throw v;
                r.getPolicy().validate();
                String warn = TimeseriesLifecycleType.validateMonotonicallyIncreasingPhaseTimings(r.getPolicy().getPhases().values());
                StringBuilder s = new StringBuilder();
                for (Step st : r.getPolicy().toSteps(null, null)) { if (s.length() > 0) s.append(' '); var k = st.getKey(); s.append(k.phase() + "/" + k.action() + "/" + k.name()); }
                System.out.println("OK   " + f + (warn == null || warn.isEmpty() ? "" : "  WARNING: " + warn));
                System.out.println("     steps: " + s);
            } catch (Exception x) {
                bad++;
                StringBuilder s = new StringBuilder();
                for (Throwable t = x; t != null; t = t.getCause()) s.append(s.length() == 0 ? "" : " <- ").append(t.getClass().getSimpleName()).append(": ").append(t.getMessage());
                System.out.println("BAD  " + f + "  " + s);
            }
        }
        System.exit(bad == 0 ? 0 : 1);
    }
}
