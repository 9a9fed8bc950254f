// Runs a declarative Jenkinsfile as Jenkins would: sections and steps that it does not know are errors, before anything is run; `sh` runs
// for real, in the directory WORKSPACE and with this process' environment. The file CREDENTIALS has secrets by their IDs (JSON). When the
// file ABORT appears the build is aborted, as jenkinsci/jenkins does it (ProcessTree.java). What came of it is written to the file RESULT.
// Usage: groovy declarative.groovy JENKINSFILE, or groovy declarative.groovy --validate JENKINSFILE... (says what is wrong with each).

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import java.util.concurrent.TimeUnit
import org.codehaus.groovy.control.CompilerConfiguration

class Wrong extends RuntimeException {
    Wrong(String message) { super(message) }
}

class Aborted extends RuntimeException { }

/** What a section holds; each once. */
abstract class Section {
    protected final Set given = []

    static void fill(Object section, Closure body) {
        body.delegate = section
        body.resolveStrategy = Closure.DELEGATE_ONLY
        body.call()
    }

    protected void once(String name) {
        if (!given.add(name)) { throw new Wrong("$name is there twice") }
    }

    protected void required(String... names) {
        def missing = names.find { name -> !given.contains(name) }
        if (missing) { throw new Wrong("${getClass().simpleName} has no $missing") }
    }

    def methodMissing(String name, Object arguments) { throw new Wrong("${getClass().simpleName} has no section or step '$name'") }

    def propertyMissing(String name) { throw new Wrong("${getClass().simpleName} knows no '$name'") }
}

class Agent extends Section {
    String name

    void label(String name) {
        once('label')
        this.name = name
    }
}

class Triggers extends Section {
    void githubPush() { once('githubPush') }
}

class Options extends Section {
    String resource

    void disableConcurrentBuilds() { once('disableConcurrentBuilds') }

    void timestamps() { once('timestamps') }

    void timeout(Map arguments) {
        once('timeout')
        if (arguments.keySet() != ['time', 'unit'] as Set || !(arguments.time instanceof Integer)) { throw new Wrong("timeout: $arguments") }
        TimeUnit.valueOf(arguments.unit)
    }

    void lock(Map arguments) {
        once('lock')
        if (arguments.keySet() != ['resource'] as Set) { throw new Wrong("lock: $arguments") }
        resource = arguments.resource
    }
}

class Environment {
    final Map variables = [:]

    void setProperty(String name, Object value) { variables[name] = value as String }
}

class Post extends Section {
    /** In the order in which they run. */
    static final ORDER = ['always', 'changed', 'fixed', 'regression', 'aborted', 'failure', 'success', 'unstable', 'unsuccessful', 'cleanup']
    final Map conditions = [:]

    def methodMissing(String name, Object arguments) {
        if (!ORDER.contains(name)) { throw new Wrong("post has no condition '$name'") }
        once(name)
        conditions[name] = arguments[0]
    }

    List bodiesFor(String result) {
        def holds = [always: true, cleanup: true, aborted: result == 'ABORTED', failure: result == 'FAILURE', success: result == 'SUCCESS',
                     unsuccessful: result != 'SUCCESS']
        ORDER.findAll { name -> conditions.containsKey(name) }.collectMany { name ->
            if (!holds.containsKey(name)) { throw new Wrong("post condition '$name' needs an earlier build") }
            holds[name] ? [conditions[name]] : []
        }
    }
}

class Stage extends Section {
    final Options options = new Options()
    final Environment environment = new Environment()
    final Post post = new Post()
    Closure steps

    void options(Closure body) { once('options'); fill(options, body) }

    void environment(Closure body) { once('environment'); fill(environment, body) }

    void post(Closure body) { once('post'); fill(post, body) }

    void steps(Closure body) { once('steps'); steps = body }
}

class Stages extends Section {
    final Map all = [:]

    void stage(String name, Closure body) {
        once("stage '$name'")
        def stage = all[name] = new Stage()
        fill(stage, body)
        stage.required('steps')
    }
}

class Pipeline extends Section {
    final Agent agent = new Agent()
    final Triggers triggers = new Triggers()
    final Options options = new Options()
    final Environment environment = new Environment()
    final Stages stages = new Stages()
    final Post post = new Post()

    void agent(Closure body) { once('agent'); fill(agent, body); agent.required('label') }

    void triggers(Closure body) { once('triggers'); fill(triggers, body) }

    void options(Closure body) { once('options'); fill(options, body) }

    void environment(Closure body) { once('environment'); fill(environment, body) }

    void stages(Closure body) { once('stages'); fill(stages, body) }

    void post(Closure body) { once('post'); fill(post, body) }
}

/** The steps of a stage. While they are only validated nothing is run. */
class Steps extends Section {
    Build build
    boolean validating

    void sh(String script) { sh(script: script) }

    // A string in double quotes into which Groovy has put variables.
    void sh(GString ignored) { throw new Wrong('sh: the script has the text of a variable in it') }

    Object sh(Map arguments) {
        if (!['script', 'returnStdout'].containsAll(arguments.keySet())) { throw new Wrong("sh: ${arguments.keySet()}") }
        if (arguments.script instanceof GString) { sh(arguments.script as GString) }
        if (validating) { return '' }
        build.run(arguments.script, arguments.returnStdout as boolean)
    }

    Map string(Map arguments) {
        if (arguments.keySet() != ['credentialsId', 'variable'] as Set) { throw new Wrong("string: $arguments") }
        arguments
    }

    void withCredentials(List bindings, Closure body) {
        def secrets = bindings.collectEntries { binding -> [binding.variable, validating ? '' : build.credentials[binding.credentialsId]] }
        if (secrets.values().any { secret -> secret == null }) { throw new Wrong("there are no such credentials: $bindings") }
        build.with(secrets) { fill(this, body) }
    }

    void script(Closure body) { fill(new ScriptBlock(build: build, validating: validating), body) }
}

/** Where statements are allowed too. */
class ScriptBlock extends Steps {
    Object getEnv() { build.global }
}

class Build {
    final Pipeline pipeline
    final Map credentials
    final File abort
    /** What `env.NAME = …` set, and what blocks add while they last. */
    Map global = [:]
    Map local = [:]
    final Map came = [result: 'SUCCESS', stages: [:], locked: []]

    Build(Pipeline pipeline) {
        this.pipeline = pipeline
        def credentials = System.getenv('CREDENTIALS')
        this.credentials = credentials ? new JsonSlurper().parse(new File(credentials)) : [:]
        abort = new File(System.getenv('ABORT') ?: '/nonexistent')
    }

    void with(Map variables, Closure body) {
        def before = local
        local = before + variables
        try { body.call() } finally { local = before }
    }

    void validate() {
        pipeline.required('agent', 'stages')
        def bodies = pipeline.stages.all.values().collectMany { stage -> [stage.steps] + stage.post.conditions.values() }
        (bodies + pipeline.post.conditions.values()).each { body -> Section.fill(new Steps(build: this, validating: true), body) }
        global = [:]
    }

    void run() {
        with(pipeline.environment.variables) {
            pipeline.stages.all.each { name, stage -> if (came.result == 'SUCCESS') { came.stages[name] = runs(stage) } }
            finishes(pipeline.post, came.result)
        }
        came.env = global
    }

    String runs(Stage stage) {
        def result = 'SUCCESS'
        if (stage.options.resource) { came.locked << stage.options.resource }
        with(stage.environment.variables) {
            result = outcome(stage.steps)
            result = finishes(stage.post, result)
        }
        came.result = result
    }

    String finishes(Post post, String result) {
        def failed = post.bodiesFor(result).collect { body -> outcome(body) }.any { outcome -> outcome != 'SUCCESS' }
        failed && result == 'SUCCESS' ? 'FAILURE' : result
    }

    String outcome(Closure body) {
        try {
            Section.fill(new Steps(build: this), body)
            return 'SUCCESS'
        } catch (Aborted ignored) {
            return 'ABORTED'
        } catch (IllegalStateException failed) {
            System.err.println(failed.message)
            return 'FAILURE'
        }
    }

    /** As the durable task plugin does; what the script writes to stderr is the log. */
    Object run(String script, boolean returnStdout) {
        def control = File.createTempDir('durable-', '')
        try {
            def file = new File(control, 'script.sh')
            file.text = script
            def builder = new ProcessBuilder('sh', '-xe', file.path).directory(new File(System.getenv('WORKSPACE')))
            def cookie = "durable-${UUID.randomUUID()}" as String
            builder.environment().putAll(global + local + [JENKINS_SERVER_COOKIE: cookie])
            def output = new File(control, 'output')
            builder.redirectError(ProcessBuilder.Redirect.INHERIT)
            builder.redirectOutput(returnStdout ? ProcessBuilder.Redirect.to(output) : ProcessBuilder.Redirect.INHERIT)
            def code = ended(builder.start(), cookie)
            if (code != 0) { throw new IllegalStateException("script returned exit code $code") }
            returnStdout ? output.text : null
        } finally {
            control.deleteDir()
        }
    }

    int ended(Process process, String cookie) {
        while (!process.waitFor(20, TimeUnit.MILLISECONDS)) {
            if (abort.delete()) {
                terminate(cookie)
                // Then the step is given up, whether the process is there or not.
                if (!process.waitFor(20, TimeUnit.SECONDS)) { System.err.println('After 20s process did not stop') }
                throw new Aborted()
            }
        }
        process.exitValue()
    }

    /** SIGTERM to all processes whose environment has the cookie. */
    void terminate(String cookie) {
        new File('/proc').listFiles().findAll { it.name ==~ /\d+/ }.each { directory ->
            try {
                if (new File(directory, 'environ').text.split('\0').contains("JENKINS_SERVER_COOKIE=$cookie" as String)) {
                    ProcessHandle.of(directory.name as long).ifPresent { process -> process.destroy() }
                }
            } catch (IOException ignored) {
                // It has ended, or is none of ours.
            }
        }
    }
}

abstract class JenkinsfileBase extends Script {
    static List pipelines

    void pipeline(Closure body) {
        def pipeline = new Pipeline()
        Section.fill(pipeline, body)
        pipelines << pipeline
    }

    static Build read(String file) {
        pipelines = []
        def configuration = new CompilerConfiguration(scriptBaseClass: JenkinsfileBase.name)
        new GroovyShell(JenkinsfileBase.classLoader, new Binding(), configuration).evaluate(new File(file).text, 'Pipeline')
        if (pipelines.size() != 1) { throw new Wrong("there are ${pipelines.size()} pipelines") }
        def build = new Build(pipelines[0])
        build.validate()
        build
    }
}

if (args[0] == '--validate') {
    args.drop(1).each { file ->
        try {
            JenkinsfileBase.read(file)
            println('right')
        } catch (Exception wrong) {
            println("wrong: ${wrong.message.readLines()[0]}")
        }
    }
} else {
    def build = JenkinsfileBase.read(args[0])
    build.run()
    new File(System.getenv('RESULT')).text = JsonOutput.toJson(build.came)
}
